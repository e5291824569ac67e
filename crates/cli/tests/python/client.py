"""A client that shares only the schema with Capstan.

    client.py policy TABLE POLICY              writes a policy with one identity for each role
    client.py ask TABLE PROTOS STUBS TCP UNIX  generates stubs, checks every cell, compares

TABLE is the role table: tab-separated, a line for each capability, a column for each role, x or .
"""

import json
import sys
from pathlib import Path


def read_table(path):
    header, *lines = [line.split("\t") for line in Path(path).read_text().splitlines()]
    roles = header[1:]
    return {
        role: {line[0]: line[column + 1] == "x" for line in lines}
        for column, role in enumerate(roles)
    }


def write_policy(table, path):
    policy = {
        "version": 1,
        "catalog": "chainguard-2025-08-14",
        "groups": [{"id": "acme", "name": "Acme \u00fc \U0001f680"}, {"id": "acme/team"}],
        "identities": [{"id": f"acme/{role}"} for role in table],
        "role_bindings": [
            {"identity": f"acme/{role}", "role": role, "scope": "acme/team"} for role in table
        ],
    }
    Path(path).write_text(json.dumps(policy, indent="\t"))


def ask(table, protos, stubs, address, unix):
    import grpc
    import grpc_tools
    from google.rpc import error_details_pb2, status_pb2
    from grpc_tools import protoc

    well_known = Path(grpc_tools.__file__).parent / "_proto"
    arguments = ["protoc", f"-I{protos}", f"-I{well_known}", f"--python_out={stubs}",
                 f"--grpc_python_out={stubs}", "capstan/v1/decision.proto"]
    assert protoc.main(arguments) == 0
    sys.path.insert(0, stubs)
    from capstan.v1 import decision_pb2 as v1
    from capstan.v1 import decision_pb2_grpc as rpc

    def info(error):
        """The code and the ErrorInfo of a failed call."""
        details = dict(error.trailing_metadata())["grpc-status-details-bin"]
        found = error_details_pb2.ErrorInfo()
        for detail in status_pb2.Status.FromString(details).details:
            if detail.Is(found.DESCRIPTOR):
                detail.Unpack(found)
        return error.code(), found.domain, found.reason, found.metadata["field"]

    def fails(call, request):
        try:
            call(request, timeout=10)
        except grpc.RpcError as error:
            return error
        raise AssertionError(f"answered: {request}")

    checks = lists = 0
    with grpc.insecure_channel(address) as channel:
        service = rpc.DecisionServiceStub(channel)
        for role, cells in table.items():
            for capability, expected in cells.items():
                answer = service.Check(v1.CheckRequest(
                    identity=f"acme/{role}", capability=capability, resource="acme/team/x"), timeout=10)
                reason = v1.REASON_GRANTED if expected else v1.REASON_CAPABILITY_NOT_IN_ROLE
                assert (answer.allowed, answer.reason) == (expected, reason), (role, capability)
                assert answer.revision == 1 and not answer.HasField("valid_until")
                checks += 1
            answer = service.ListCapabilities(v1.ListCapabilitiesRequest(
                identity=f"acme/{role}", resource="acme/team"), timeout=10)
            assert list(answer.capabilities) == sorted(c for c, x in cells.items() if x), role
            assert [(g.role, g.scope) for g in answer.grants] == [(role, "acme/team")]
            lists += 1

        batch = [(role, capability) for role in table for capability in table[role]]
        answer = service.BatchCheck(v1.BatchCheckRequest(checks=[
            v1.CheckItem(identity=f"acme/{role}", capability=capability, resource="acme/team")
            for role, capability in batch]), timeout=10)
        assert [r.allowed for r in answer.results] == [table[r][c] for r, c in batch]

        good = dict(identity="acme/owner", capability="repo.list", resource="acme/team")
        above = service.Check(v1.CheckRequest(**{**good, "resource": "acme"}), timeout=10)
        assert (above.allowed, above.reason) == (False, v1.REASON_NO_BINDING)
        invalid = grpc.StatusCode.INVALID_ARGUMENT
        for field, value in [("identity", "a//b"), ("capability", "repo.lst"), ("resource", "")]:
            error = fails(service.Check, v1.CheckRequest(**{**good, field: value}))
            assert info(error) == (invalid, "capstan", "INVALID_FIELD", field), error
        many = v1.BatchCheckRequest(checks=[v1.CheckItem(**good)] * 1001)
        assert info(fails(service.BatchCheck, many)) == (invalid, "capstan", "INVALID_FIELD", "checks")

        # Invalid protobuf, and a string that is not UTF-8.
        raw = channel.unary_unary("/capstan.v1.DecisionService/Check")
        for undecodable in [b"\x0a\xff", b"\x0a\x02\xc3\x28", b"\xff\xff\xff"]:
            assert info(fails(raw, undecodable))[:3] == (invalid, "capstan", "INVALID_FIELD")
    # Over a unix socket, this client sends the path of the socket as the authority, with percent signs.
    for options in [[], [("grpc.default_authority", "localhost")]]:
        with grpc.insecure_channel(unix, options=options) as channel:
            answer = rpc.DecisionServiceStub(channel).Check(v1.CheckRequest(**good), timeout=10)
            assert answer.allowed
    print(f"{checks} checks, {lists} lists, 1 batch of {len(batch)}: all match the table")


if __name__ == "__main__":
    command, table, *rest = sys.argv[1:]
    {"policy": write_policy, "ask": ask}[command](read_table(table), *rest)
