"""What /openapi.json says is what the server does: schemathesis asks every operation.

It sends requests that follow the document and requests that break it. An answer must have a status,
a media type, headers and a body that the document has, and what breaks the document is refused.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

from server import Server

# The same requests on every machine; they take about a minute.
EXAMPLES, SEED = 60, 19
# What other APIs do there is not done here, and the answer says so: 501.
ABSENT = "^/api/(pull|push|create|copy|delete)$"
CHECKS = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "unsupported_method",
    "allow_header_conformance",
]


def main():
    program = Path(sys.executable).with_name("schemathesis")
    with Server() as server, tempfile.TemporaryDirectory() as folder:
        command = [program, "run", f"{server.url}/openapi.json", "--checks", ",".join(CHECKS)]
        command += ["--seed", str(SEED), "--max-examples", str(EXAMPLES), "--no-color"]
        command += ["--generation-deterministic"]
        command += ["--phases", "examples,coverage,fuzzing"]
        command += ["--exclude-path-regex", ABSENT, "--continue-on-failure"]
        command += ["--request-timeout", "60"]
        found = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        if found.returncode != 0:
            sys.exit(found.stdout + found.stderr)
        server.until_idle()
    (cases,) = re.findall(r"^ *(\d+ generated.*)$", found.stdout, re.MULTILINE)
    print(f"schemathesis: {cases}")


main()
