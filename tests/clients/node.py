"""The client in Node (sdk.mjs), which the third argument names, against a server."""

import subprocess
import sys

from server import Server

with Server() as server:
    subprocess.run(["node", sys.argv[3], server.url], check=True)
    server.until_idle()
print("openai of npm: fine")
