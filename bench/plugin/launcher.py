"""Runs the device plugin as in a pod: with a service account, on simulated GPUs.

``python -m bench.plugin.launcher FOLDER PORT STATE -- ARGS``: FOLDER stands for the one that Kubernetes fills with the
service account, PORT is the API server's on 127.0.0.1, the rest is `playground.node.plugin_launcher`'s.
"""

import os
import sys
from pathlib import Path

from fracgpu.kube import connection
from playground.node.plugin_launcher import main

if __name__ == "__main__":
    folder, port, *rest = sys.argv[1:]
    os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"] = "127.0.0.1", port
    vars(connection)["SERVICE_ACCOUNT"] = Path(folder)
    sys.exit(main(rest))
