"""A rescoring sidecar for OpenSearch: the same hits, in the order that this shopper wants.

Packages, lowest first; each imports only from those above it in this list:

- ``records``, ``errors``, ``settings``, ``compiled``: what every package shares.
- ``ranking``, ``search``: pure; the ranker, and OpenSearch's request and response JSON.
- ``stores``, ``serving``, ``scorer``: I/O, the path of one search through all of it, and the
  networks in a process of their own.
- ``web``, ``training``, ``analysis``: the HTTP face, the way from logs to a model, and what logs
  and orders look like.
"""
