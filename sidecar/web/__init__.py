"""HTTP: a WSGI front, a Flask application factory, one blueprint a file.

The front (``app.py``) sends the sidecar's own paths to Flask and all others straight to the search
gateway (``gateway.py``), so that a search pays nothing for Flask's routing. ``services.py`` builds
what the paths use, after the fork. ``errors.py`` turns exceptions into OpenSearch's JSON.

Below the front, ``gunicorn_conf.py`` sets gunicorn up and ``worker.py`` changes its worker, with
the help of ``conversation.py`` (a connection's requests), ``lingering.py`` (threads that stay with
a connection) and ``parking.py`` (connections that need no thread).
"""
