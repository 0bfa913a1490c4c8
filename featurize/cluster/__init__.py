"""Running functions on the workers of a Dask cluster, or on worker processes that are started here."""
