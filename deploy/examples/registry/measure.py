"""Measures the example on this machine. No other load should run.

measure.py revocation FOLDER CAPSTAN [ROUNDS]     the time from a reload to the first refusal
measure.py throughput FOLDER CAPSTAN [SECONDS]    the cost of ext_authz with Capstan and without
"""

import base64
import os
import re
import statistics
import subprocess
import sys
import time
from http.client import HTTPConnection
from pathlib import Path

import artifacts
from stack import HERE, PATIENCE, Program, Stack

MANIFEST = "/v2/team/hello/manifests/1"
HEADERS = {
    "Authorization": "Basic " + base64.b64encode(b"acme/viewer:demo-viewer").decode(),
    "Accept": artifacts.MANIFEST_TYPE,
}


def start(folder, capstan):
    folder = Path(folder).resolve()
    stack = Stack(folder, Path(capstan).resolve())
    stack.policy = folder / "policy.yaml"
    stack.policy.write_text((HERE / "policy.yaml").read_text())
    return stack


def push(stack):
    artifacts.image(stack.folder / "image", "hello\n")
    subprocess.run(
        [
            "skopeo",
            "copy",
            "--quiet",
            "--insecure-policy",
            "--dest-tls-verify=false",
            "--dest-creds",
            "acme/owner:demo-owner",
            f"oci:{stack.folder}/image:latest",
            f"docker://127.0.0.1:{stack.port}/team/hello:1",
        ],
        check=True,
    )


def percentile(values, share):
    values = sorted(values)
    return values[min(len(values) - 1, int(len(values) * share))]


def revocation(folder, capstan, rounds="200"):
    with start(folder, capstan) as stack:
        push(stack)
        whole = stack.policy.read_text()
        line = next(
            line for line in whole.splitlines(keepends=True) if "acme/viewer, role: viewer" in line
        )
        connection = HTTPConnection("127.0.0.1", stack.port, timeout=PATIENCE)

        def status():
            connection.request("GET", MANIFEST, headers=HEADERS)
            answer = connection.getresponse()
            answer.read()
            return answer.status

        def write(text):
            """Replaces the policy. Returns the index of the first log line that can report it."""
            new, since = stack.folder / "policy.new", len(stack.capstan.said)
            new.write_text(text)
            new.replace(stack.policy)
            return since

        def acknowledged(since):
            return stack.capstan.wait_for("loaded and checked", since)[0]

        def allowed_again():
            acknowledged(write(whole))
            assert status() == 200

        allowed, after, all_in_all = 0, [], []
        for _ in range(int(rounds)):
            # Send requests only after Capstan logs the reload.
            told = acknowledged(write(whole.replace(line, "")))
            while (got := status()) == 200:
                allowed += 1
            after.append(time.monotonic() - told)
            assert got == 403, got
            allowed_again()

            # Send requests continuously, starting when the file is replaced.
            begun = time.monotonic()
            since = write(whole.replace(line, ""))
            while (got := status()) == 200:
                pass
            all_in_all.append(time.monotonic() - begun)
            assert got == 403, got
            acknowledged(since)
            allowed_again()
    print(f"{rounds} revoking reloads, one request at a time on one connection")
    for what, values in (("from Capstan's log line", after), ("from the changed file", all_in_all)):
        print(
            f"{what} to the first refusal: p50 {percentile(values, 0.5) * 1e3:.2f} ms, "
            f"p99 {percentile(values, 0.99) * 1e3:.2f} ms, at most {max(values) * 1e3:.2f} ms"
        )
    print(f"requests allowed after the log line: {allowed}")


def cpu(programs):
    """The CPU time of these programs in seconds."""
    ticks = 0
    for program in programs:
        fields = Path(f"/proc/{program.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def seconds(text):
    number, unit = re.fullmatch(r"([\d.]+)(us|ms|s)", text).groups()
    return float(number) * {"us": 1e-6, "ms": 1e-3, "s": 1}[unit]


def load(port, target, duration):
    """Requests per second, p50, p99 and requests of 32 connections with one request each."""
    said = subprocess.run(
        [
            "wrk",
            "-t1",
            "-c32",
            f"-d{duration}s",
            "--latency",
            *(f"-H{name}: {value}" for name, value in HEADERS.items()),
            f"http://127.0.0.1:{port}{target}",
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "Non-2xx" not in said and "Socket errors" not in said, said
    found = {share: seconds(value) for share, value in re.findall(r"(50|99)% +(\S+)", said)}
    requests = int(re.search(r"(\d+) requests in", said)[1])
    return float(re.search(r"Requests/sec: +(\S+)", said)[1]), found["50"], found["99"], requests


def start_ways(stack):
    """For each setup: an Envoy, its port, and the processes of its ext_authz server."""
    text = (HERE / "envoy.yaml").read_text()
    first = text.index("                  - name: envoy.filters.http.ext_authz")
    asks = text[first : text.index("                  - name: envoy.filters.http.router")]
    to_files = "- match: {prefix: /apk/}\n                          route: {cluster: files}"
    alone = (
        to_files,
        to_files.replace("route: {cluster: files}", "direct_response: {status: 200}"),
    )
    nothing = stack.folder / "yardstick.sock"
    nothing.unlink(missing_ok=True)
    options = f"bench do-nothing --listen unix:{nothing.name} --runtime per-core"
    yardstick = Program("do-nothing", [stack.capstan_program, *options.split()], stack.folder)
    stack.running.append(yardstick)
    yardstick.wait_for("unix:")
    return {
        "without ext_authz": (stack.envoy_with(0, "without", alone, (asks, "")), []),
        "do-nothing server": (
            stack.envoy_with(0, "nothing", alone, ("capstan.sock", nothing.name)),
            [yardstick],
        ),
        "Capstan": (stack.envoy_with(0, "asking", alone), [stack.capstan]),
    }


def throughput(folder, capstan, duration="5", rounds=6):
    targets = {"answered by Envoy": "/apk/x", "manifest from docker-registry": MANIFEST}
    with start(folder, capstan) as stack:
        push(stack)
        ways = start_ways(stack)
        print(f"{rounds} rounds of {duration} s each, in turn; 32 connections, HTTP/1.1; medians")
        for what, target in targets.items():
            found = {way: [] for way in ways}
            for (_, port), _ in ways.values():
                load(port, target, 1)
            for turn in range(rounds):
                order = list(ways.items())
                for way, ((program, port), others) in order if turn % 2 == 0 else order[::-1]:
                    own, other = cpu([program]), cpu(others)
                    rate, p50, p99, requests = load(port, target, duration)
                    own, other = cpu([program]) - own, cpu(others) - other
                    found[way].append((rate, p50, p99, own / requests, other / requests))
            print(f"\n{what:33}                                     CPU per request in µs")
            print(f"{'':33} requests/s (min to max)     p50 ms  p99 ms  Envoy  ext_authz server")
            for way, figures in found.items():
                columns = list(zip(*figures, strict=True))
                rate, p50, p99, own, other = map(statistics.median, columns)
                print(
                    f"{way:33} {rate:7.0f} ({min(columns[0]):6.0f} to {max(columns[0]):6.0f})"
                    f"  {p50 * 1e3:6.2f}  {p99 * 1e3:6.2f}  {own * 1e6:5.0f}  {other * 1e6:5.0f}"
                )


if __name__ == "__main__":
    {"revocation": revocation, "throughput": throughput}[sys.argv[1]](*sys.argv[2:])
