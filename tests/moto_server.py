"""moto's S3 server on a port of loopback: `python tests/moto_server.py PORT`.

`moto_server` answers requests in threads, and its check of If-None-Match and its put are two steps, so two puts could
both win. Here requests are answered one at a time.
"""

import sys

from moto.server import DomainDispatcherApplication, MotoRequestHandler, create_backend_app, run_simple

if __name__ == "__main__":
    app = DomainDispatcherApplication(create_backend_app)
    run_simple("127.0.0.1", int(sys.argv[1]), app, threaded=False, request_handler=MotoRequestHandler)
