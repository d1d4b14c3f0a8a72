"""Making data sets: photos to LMDBs and test sets, collecting photos, verifying what was made."""
