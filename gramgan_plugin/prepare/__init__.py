"""Make data sets: pack photos into LMDBs and test sets, collect photos, verify data sets."""
