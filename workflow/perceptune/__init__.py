import os

# Arrow keeps freed memory for a while, up to 80 MB of an import. mimalloc reads this when Arrow is loaded.
os.environ.setdefault("MIMALLOC_PURGE_DELAY", "0")
