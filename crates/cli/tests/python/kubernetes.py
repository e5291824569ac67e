"""Lints, renders and publishes the chart by Helm's own engine, and holds manifests against the schemas of Kubernetes.

    kubernetes.py render CHART VALUES...    lints each, renders each; JSON: {NAME: {"text": ..., "objects": [...]}}
    kubernetes.py refuse CHART VALUES       one line for each wrong value: what Helm says of it
    kubernetes.py odd CHART VALUES          renders values that surprise YAML; how many
    kubernetes.py read MANIFEST             JSON: the objects
    kubernetes.py yaml FILE                 JSON of a file that is no manifest
    kubernetes.py publish CHART VALUES HOST FOLDER    pushes the chart to a registry, pulls it, renders what was pulled
"""

import copy
import json
import pathlib
import sys

import helm_python
import kubernetes_validate
import yaml

# The oldest and the newest that the chart is for.
VERSIONS = ["1.29", "1.37"]
# Of the Prometheus operator, whose schemas are not those of Kubernetes.
FOREIGN = {"PodMonitor", "PrometheusRule"}


# What surprises YAML, and must come out as it went in.
ODD = [
    {"fullnameOverride": "a" * 70},
    {"fullnameOverride": "a" * 50 + "---b"},
    {"nameOverride": "123"},
    {"nameOverride": "yes"},
    {"policy": {"document": "  version: 1\n  groups: []\n"}},
    {"policy": {"document": "version: 1 #\rimmutable: true\rbinaryData: {a: b}\r"}},
    {"policy": {"document": "version: 1 #\u2028immutable: true\n"}},
    {"policy": {"document": "a: {{ .Values }}\n\tb"}},
    {"policy": {"key": "true"}},
    {"policy": {"key": "123"}},
    {"policy": {"document": "", "existingConfigMap": "123"}},
    {"serviceAccount": {"name": "true"}},
    {"priorityClassName": "1"},
    {"replicaCount": 1000000, "terminationGracePeriodSeconds": 1000000},
    {"podLabels": {"app.kubernetes.io/name": "x", "b": "yes"}},
    {"networkPolicy": {"clients": [], "monitoring": []}},
    {"networkPolicy": {"enabled": False}},
    {"otlpEndpoint": "http://otel.observability:4317"},
    {"listenAddress": "[::]"},
    {"replicaCount": 1},
]


def odd(path, good):
    good = values_of(good)
    with helm_python.Chart.load(path) as chart:
        for more in ODD:
            values = merged(copy.deepcopy(good), copy.deepcopy(more))
            for release in ["capstan", "123", "r" * 53]:
                files = chart.render(values, name=release, namespace="123")
                text = "---\n".join(text for name, text in files.items() if not name.endswith("NOTES.txt"))
                objects = {it["kind"]: it for it in objects_of(text)}
                pod = objects["Deployment"]["spec"]["template"]
                for key, value in objects["Deployment"]["spec"]["selector"]["matchLabels"].items():
                    assert pod["metadata"]["labels"][key] == value, more
                name = objects["Service"]["metadata"]["name"]
                assert len(name) <= 52 and not name.endswith("-"), name
                if "document" in more.get("policy", {}) and more["policy"]["document"]:
                    found = objects["ConfigMap"]
                    assert found["data"] == {"policy.yaml": more["policy"]["document"]}, found
                    assert set(found) == {"apiVersion", "kind", "metadata", "data"}, found
    print(len(ODD))


def values_of(path):
    return yaml.safe_load(pathlib.Path(path).read_text())


def objects_of(text):
    objects = [it for it in yaml.safe_load_all(text) if it is not None]
    for it in objects:
        if it["kind"] not in FOREIGN:
            for version in VERSIONS:
                kubernetes_validate.validate(it, version, strict=True)
    return objects


def lint(path, values):
    for version in VERSIONS:
        report = helm_python.lint(path, values, strict=True, namespace="auth", kube_version=f"v{version}.0")
        worse = [it for it in report["messages"] if it["severity"] > 1]
        assert not worse and not report["errors"], report


def rendered(chart, values):
    files = chart.render(values, name="capstan", namespace="auth")
    manifests = [(name, text) for name, text in sorted(files.items()) if not name.endswith("NOTES.txt")]
    documents = [f"# {name}\n{text.strip()}\n" for name, text in manifests if text.strip()]
    assert any(name.endswith("NOTES.txt") and "4480" in text for name, text in files.items())
    return "---\n".join(documents)


def render(path, paths):
    # What is missing is said when it is installed: lint shows the chart's author what is wrong with the chart.
    lint(path, None)
    found = {}
    with helm_python.Chart.load(path) as chart:
        for of in paths:
            values = values_of(of)
            lint(path, values)
            text = rendered(chart, values)
            found[pathlib.Path(of).stem] = {"text": text, "objects": objects_of(text)}
    print(json.dumps(found))


STORE = {"policy": {"document": ""}, "store": {"enabled": True, "organization": "acme", "owner": "alice"}}
TLS = {"acceptPlaintext": False, "tls": {"secretName": "capstan-tls", "clientCertificates": True}}

# Each with the value that makes it wrong.
WRONG = [
    ("nothing says where the policy comes from", {"policy": {"document": ""}}),
    ("two policies", {"policy": {"existingConfigMap": "acme"}}),
    ("a store without an owner", {"policy": {"document": ""}, "store": {"enabled": True, "organization": "acme"}}),
    ("a store and a policy", {"store": {"enabled": True, "organization": "acme", "owner": "alice"}}),
    ("plain text that nobody accepted", {"acceptPlaintext": False}),
    ("no image", {"image": {"repository": ""}}),
    ("an unknown value", {"replicas": 3}),
    ("an unknown value within another", {"policy": {"documents": "x"}}),
    ("a number as text", {"replicaCount": "3"}),
    ("no pod", {"replicaCount": 0}),
    ("a tag as digest", {"image": {"digest": "latest"}}),
    ("http to receivers", {"publicUrl": "http://capstan.example.com"}),
    ("a URL for nothing", {"publicUrl": "https://capstan.example.com"}),
    ("values of a store without a store", {"store": {"owner": "alice"}}),
    ("plain text beside TLS", {"tls": {"secretName": "capstan-tls"}}),
    ("no address outside", {"service": {"headless": True, "type": "LoadBalancer"}}),
    ("a budget that keeps every node", {"podDisruptionBudget": {"minAvailable": 2}}),
    ("a budget below nothing", {"podDisruptionBudget": {"minAvailable": -1}}),
    ("an argument that the chart gives", {"extraArgs": ["--workers=4"]}),
    ("an address that the chart gives", {"extraArgs": ["--listen-management=0.0.0.0:4483"]}),
    ("lists of revoked certificates that nobody presents", {"tls": {"clientRevocations": ["revoked.crl"]}}),
    ("a private key as a list", {**TLS, "tls": {**TLS["tls"], "clientRevocations": ["tls.key"]}}),
    ("an argument of revoked certificates", {"extraArgs": ["--client-crl=/etc/revoked.crl"]}),
    ("management of a policy document", {"management": {"enabled": True}}),
    ("management in plain text that nobody accepted", {**STORE, "management": {"enabled": True}}),
    ("management in plain text beside TLS", {**STORE, **TLS, "management": {"enabled": True, "acceptPlaintext": True}}),
    ("plain text of no management", {"management": {"acceptPlaintext": True}}),
    ("a name that is none", {"fullnameOverride": "my.pdp"}),
    ("a name with a field", {"priorityClassName": "x\n  hostNetwork: true"}),
    ("a key that is none", {"policy": {"key": ".."}}),
    ("blanks as a policy", {"policy": {"document": " \n"}}),
    ("too little time to drain", {"terminationGracePeriodSeconds": 5}),
]


def merged(below, above):
    for name, value in above.items():
        if isinstance(value, dict) and isinstance(below.get(name), dict):
            merged(below[name], value)
        else:
            below[name] = value
    return below


def refuse(path, good):
    good = values_of(good)
    with helm_python.Chart.load(path) as chart:
        for name, wrong in WRONG:
            try:
                values = merged(copy.deepcopy(good), copy.deepcopy(wrong))
                chart.validate_schema(chart.merge_values(values))
                chart.render(values, name="capstan", namespace="auth")
            except helm_python.HelmError as error:
                text = " ".join(str(error).split())
                print(f"{name}: {text[text.rfind('capstan/templates/') :] if 'capstan/templates/' in text else text}")
            else:
                raise SystemExit(f"{name}: rendered")


def publish(path, values, host, folder):
    from helm_python.registry import RegistryClient

    folder = pathlib.Path(folder)
    archive = pathlib.Path(helm_python.package(path, destination=str(folder)))
    with RegistryClient(plain_http=True) as client:
        client.push(str(archive), f"oci://{host}/charts", plain_http=True)
        (folder / "pulled").mkdir()
        client.pull(f"oci://{host}/charts/capstan", version="0.1.0", plain_http=True, destination=str(folder / "pulled"))
    pulled = folder / "pulled" / archive.name
    values = values_of(values)
    with helm_python.Chart.load(path) as ours, helm_python.Chart.load(str(pulled)) as theirs:
        assert rendered(theirs, values) == rendered(ours, values)
        assert theirs.schema == ours.schema
        names = {it["name"] for it in theirs.files}
        assert {"files/alerts.yaml", "files/dashboard.json"} <= names, names
    print(helm_python.digest(str(pulled)) == helm_python.digest(str(archive)))


if __name__ == "__main__":
    verb, first, *rest = sys.argv[1:]
    if verb == "render":
        render(first, rest)
    elif verb == "refuse":
        refuse(first, *rest)
    elif verb == "odd":
        odd(first, *rest)
    elif verb == "read":
        print(json.dumps(objects_of(pathlib.Path(first).read_text())))
    elif verb == "yaml":
        print(json.dumps(values_of(first)))
    elif verb == "publish":
        publish(first, *rest)
