"""Runs beside the default one: their settings as data, executed through DVC's queue, kept with commit, data and model, compared."""
