"""A rescoring sidecar for OpenSearch: the same hits, in the order that this shopper wants.

Rooms, from the ground up; imports point down this list only:

- ``records``, ``errors``, ``settings``, ``compiled``: the words that every room speaks.
- ``ranking``, ``search``: pure; the ranker, and OpenSearch's request and response JSON.
- ``stores``, ``scorer``, ``serving``: I/O, networks in a process of their own, and the path of one
  search through all of it.
- ``web``, ``training``, ``analysis``: the HTTP face, the way from logs to a model, and what logs
  and orders look like.
"""
