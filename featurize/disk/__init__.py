"""Files on disk: durable writes (`durable`), JSON and CSV (`forms`), and files with checksums beside them (`checked`)."""
