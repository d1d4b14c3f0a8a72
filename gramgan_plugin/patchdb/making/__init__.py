"""Making patch databases: choosing patches of photos, building, adding to, merging, looking at them."""
