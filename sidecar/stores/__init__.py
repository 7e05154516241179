"""Where do states, events, products and models live, and how are they reached?

All I/O of the project: the HTTP client to OpenSearch, the stores on it with their in-memory
twins, files and model directories.
"""
