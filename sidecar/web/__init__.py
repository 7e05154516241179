"""HTTP: a WSGI front, a Flask application factory, one blueprint a file.

The front (``app.py``) sends the sidecar's own paths to Flask and all others straight to the search
gateway (``gateway.py``), so that a search pays nothing for Flask's routing. ``services.py`` builds
what the paths use, after the fork. ``errors.py`` turns exceptions into OpenSearch's JSON.
"""
