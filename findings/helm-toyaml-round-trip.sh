#!/usr/bin/env bash
# Helm 4's engine (helm-python-sdk 0.2.2) and PyYAML 6.0.4: what `toYaml` writes is not always read back as it was.
#
# Guess: `toYaml` of a map of texts is YAML that every YAML reader reads as the same texts, as `toJson` is JSON, and `fromYaml` of it
# gives the map back: texts that YAML could take for something else are quoted.
#
# Seen: `toYaml` cuts off the line end of the whole, which is that of the last text: `fromYaml (toYaml x)` has "one" where x has "one\n".
# Followed by a line end, as `nindent` in the middle of a template leaves it, the text is whole. Texts that YAML takes for numbers, times
# or null are quoted, but `=` and `<<`, which are values of YAML 1.1, are not, and PyYAML cannot construct them.
#
# It matters for charts that put documents of users into a ConfigMap, and for tools in Python that read what charts render. Write texts
# that may be anything with `toJson`, which is YAML, too.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv python
python/bin/pip install --quiet --disable-pip-version-check helm-python-sdk==0.2.2 PyYAML==6.0.4
mkdir -p chart/templates
printf 'apiVersion: v2\nname: chart\nversion: 0.1.0\n' >chart/Chart.yaml
cat >chart/templates/texts.yaml <<'YAML'
yaml:
  {{- toYaml (dict "text" .Values.text) | nindent 2 }}
json: {{ toJson (dict "text" .Values.text) }}
back: {{ (fromYaml (toYaml (dict "text" .Values.text))).text | toJson }}
YAML
cat >try.py <<'PYTHON'
import helm_python
import yaml


def read(text):
    with helm_python.Chart.load("chart") as chart:
        rendered = chart.render({"text": text}, name="x")["chart/templates/texts.yaml"]
    try:
        found = yaml.safe_load(rendered)
    except yaml.YAMLError as error:
        return type(error).__name__, rendered
    assert found["json"] == {"text": text}, rendered
    return (found["yaml"]["text"] == text, found["back"] == text), rendered


for text in ["one", "one\ntwo", "12:30:45", "0o17", "null", "1e3", "y", "2026-11-30"]:
    found, _ = read(text)
    assert found == (True, True), (text, found)
for text in ["one\n", "one\ntwo\n"]:
    found, _ = read(text)
    print(repr(text), "after nindent, and after fromYaml:", found)
    assert found == (True, False), found
for text in ["=", "<<"]:
    found, rendered = read(text)
    print(rendered.splitlines()[1].strip(), "is", found)
    assert found == "ConstructorError", found
PYTHON
python/bin/python try.py
echo "as seen: toYaml cuts off the last line end, and leaves = and << plain"
