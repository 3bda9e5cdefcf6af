"""Helm by its library: one request as JSON on standard input, the answer as JSON on standard output.

{"chart": PATH, "values": {...}, "name": ..., "namespace": ...}: the rendered templates by their paths, or {"error": TEXT}.
{"lint": PATH, "values": {...}}: what `helm lint --strict` says.
"""

import json
import sys

from helm_python import chart
from helm_python.errors import HelmError

request = json.load(sys.stdin)
try:
    if "lint" in request:
        answer = chart.lint(request["lint"], request["values"], strict=True)
    else:
        with chart.Chart.load(request["chart"]) as loaded:
            answer = loaded.render(request["values"], name=request["name"], namespace=request["namespace"])
except HelmError as error:
    answer = {"error": str(error)}
json.dump(answer, sys.stdout)
