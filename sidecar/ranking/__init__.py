"""How is a shopper's interest worked out, and what does it make of each hit?

Pure: torch, numpy, scipy and numba only. Clock and seed are arguments; no file, no socket.
"""
