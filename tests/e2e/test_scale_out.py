"""Two sidecars over a cluster of two nodes, with requests dealt out to them in turn."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

FAKE = "fake_model:application()"
MILK = {"match": {"title": "milk"}}


@pytest.fixture
def two_nodes(launcher, free_port, node_home, sidecars, fill, ask):
    """Give the sidecars a shop on two nodes, with a copy of every shard on both."""
    started = launcher("up", "--home", node_home, "--port", str(free_port()), "--nodes", "2",
                       "--heap", "512m")
    assert started.returncode == 0, started.stderr
    urls = started.stdout.split()
    index = f"{sidecars.prefix}products"
    fill(urls[0], index)
    assert ask(urls[0], "PUT", f"/{index}/_settings",
               {"index": {"number_of_replicas": 1}}).status == 200
    sidecars.opensearch = ",".join(urls)
    yield urls[0]
    launcher("down", "--home", node_home)


@pytest.mark.timeout(600)  # two nodes have to start first
def test_shoppers_dealt_out_to_two_sidecars_on_two_nodes_see_no_stale_state(
        two_nodes, sidecars, model_dir, ask):
    """A click through either sidecar is in the next search through either, at once, and both
    answer alike, though reads by id go to any copy of a state."""
    pair = [sidecars.start(FAKE, model_dir=model_dir, workers=1) for _ in range(2)]
    first = pair[0].request("POST", "/_personalize/events",
                            {"user_id": "first", "item_id": "p1", "event": "click"})
    assert first.status == 200, first.body
    health = ask(two_nodes, "GET", "/_cluster/health?wait_for_status=green&timeout=60s")
    assert health.json["status"] == "green", health.body

    def shop(number: int) -> list[str]:
        """Click and search by turns; return what was wrong."""
        user, wrong = f"shopper-{number}", []
        for step in range(12):
            item = f"p{(7 * number + 5 * step) % 30}"
            click = pair[(number + step) % 2].request(
                "POST", "/_personalize/events",
                {"user_id": user, "item_id": item, "event": "click"})
            answers = [pair[(number + step + turn) % 2].search(MILK, X_Personalize_User=user)
                       for turn in (1, 0)]
            state = str(click.json["states"][user])
            for answer in answers:
                told = (answer.outcome, answer.ids[:1], answer.headers["X-Personalize-State"])
                if told != ("applied", [item], state):
                    wrong.append(f"{user}, step {step}: {told}")
            if answers[0].ids != answers[1].ids:
                wrong.append(f"{user}, step {step}: {[answer.ids for answer in answers]}")
        return wrong

    with ThreadPoolExecutor(6) as pool:
        assert [wrong for shopper in pool.map(shop, range(6)) for wrong in shopper] == []
