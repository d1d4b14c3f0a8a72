"""Check finished LMDBs: pages, list, images, and whether LQ is GT's downsampling."""
