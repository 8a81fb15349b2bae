"""Runs beside the default one: what differs as data, executed through DVC's queue, kept with commit, data and model, compared."""
