"""Clients of AuthZEN from PyPI against a server: decern, apparitor and authzen-policy-backend.

Argument: the URL of the server, which serves the fixture of the certification scenario and an agent.
"""

import asyncio
import sys

import apparitor.models as models
import decern
from apparitor.client import AuthZENClient
from apparitor.config import ScannerConfig
from apparitor.errors import AuthZENClientError
from authzen_backend import AsyncAuthZENBackend, AuthZENBackend

url = sys.argv[1]
answers = 0


def same(found, expected):
    global answers
    assert found == expected, f"{found!r} is not {expected!r}"
    answers += 1


def entity(kind, id):
    return {"type": kind, "id": id}


def with_decern():
    client = decern.Client(url)
    for who, action, expected in [("alice", "write", True), ("bob", "write", False)]:
        decision = client.evaluate(entity("user", who), action, entity("record", "record-1"))
        same(decision.allowed, expected)
    decision = client.evaluate(
        entity("user", "alice"),
        {"name": "delete", "properties": {"soft": True}},
        entity("record", "record-1"),
        {"time": "2025-06-27T18:03-07:00"},
    )
    same((decision.allowed, decision.context), (True, {"reason": "GRANTED"}))
    try:
        client.evaluate({"type": "user"}, "read", entity("record", "record-1"))
    except decern.DecernError as error:
        same((error.status_code, error.body), (400, "subject.id: missing"))


async def with_apparitor():
    config = ScannerConfig(pdp_url=url, allow_insecure_pdp=True, max_retries=0)
    async with AuthZENClient(config) as client:
        alice = models.Subject(type="user", id="alice")
        write = models.Action(name="write")
        records = [models.Resource(type="record", id=f"record-{at}") for at in (1, 2)]
        one = models.EvaluationRequest(subject=alice, action=write, resource=records[0])
        same((await client.evaluate(one)).decision, True)
        items = [models.EvaluationItem(resource=record) for record in [*records, records[0]]]
        for semantic, expected in [
            ("execute_all", [True, False, True]),
            ("deny_on_first_deny", [True, False]),
            ("permit_on_first_permit", [True]),
        ]:
            options = models.EvaluationsOptions(evaluations_semantic=semantic)
            many = models.BatchEvaluationRequest(
                subject=alice, action=write, evaluations=items, options=options
            )
            found = await client.evaluate_batch(many)
            same([one.decision for one in found.evaluations], expected)
        try:
            await client._post("/access/v1/evaluation", {})
        except AuthZENClientError as error:
            same(error.status_code, 400)


def with_backend():
    endpoint = url + "/access/v1/evaluation"
    asked = {"agent_id": "bot", "action": "read", "resource_type": "record", "resource_id": "record-1"}
    with AuthZENBackend(endpoint, "app", token="unused") as backend:
        for action, expected in [("read", True), ("write", False)]:
            decision = backend.evaluate({**asked, "action": action})
            same((decision.allowed, decision.error), (expected, None))

    async def ask():
        async with AsyncAuthZENBackend(endpoint, "app", token="unused") as backend:
            return await backend.evaluate({**asked, "agent_id": "other"})

    decision = asyncio.run(ask())
    same((decision.allowed, decision.error), (False, None))


with_decern()
asyncio.run(with_apparitor())
with_backend()
print(f"{answers} answers of three clients")
