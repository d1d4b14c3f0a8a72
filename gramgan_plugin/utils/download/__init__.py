"""Download files over HTTP: limited in bytes, time and addresses, and resumed. Import it where it is used: requests."""
