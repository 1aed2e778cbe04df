"""Renders a chart with Helm's own code: a JSON request on standard input, a JSON answer on standard output."""

import json
import sys

import helm_python

request = json.load(sys.stdin)
with helm_python.Chart.load(request["chart"]) as chart:
    manifests = chart.render(
        request["values"], name=request["name"], namespace=request["namespace"], is_install=True
    )
    defaults = chart.values
lint = helm_python.lint(request["chart"], request["values"], strict=True)
json.dump({"manifests": manifests, "defaults": defaults, "lint": lint}, sys.stdout)
