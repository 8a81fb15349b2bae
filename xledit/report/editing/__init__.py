"""The page of the editing pipeline, its figures, tables and sentences, and the runs beside the default one."""
