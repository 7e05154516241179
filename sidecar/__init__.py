"""A rescoring sidecar for OpenSearch: the same hits, in the order that this shopper wants.

Rooms, from the ground up; imports point down this list only:

- ``records``, ``errors``, ``settings``: the words that every room speaks.
- ``ranking``, ``search``: pure; the ranker, and OpenSearch's request and response JSON.
- ``stores``, ``serving``: I/O, and the path of one search through all of it.
- ``web``, ``training``: the HTTP face, and the way from logs to a model.
"""
