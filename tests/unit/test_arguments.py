"""What programs say of an argument that is none: the value, and what it must be."""

from __future__ import annotations

import pytest

from scripts import _quickstart, generate_shop, pipeline


@pytest.mark.parametrize(("main", "given", "said"), [
    (pipeline.main, ["--window", "ten"], "argument --window: 'ten' must be a whole number"),
    (pipeline.main, ["--window", "0"], "argument --window: 0 is below 1"),
    (pipeline.main, ["--window", "10001"], "argument --window: 10001 is above 10000"),
    (pipeline.main, ["--weight", "half"], "argument --weight: 'half' must be a number"),
    (pipeline.main, ["--weight", "1.5"], "argument --weight: 1.5 must be at least 0 and at most"),
    (pipeline.main, ["--weight", "nan"], "argument --weight: nan must be at least 0"),
    (pipeline.main, ["--timeout-ms", "-1"], "argument --timeout-ms: -1 is below 1"),
    (pipeline.main, ["--timeout-ms", "60001"], "argument --timeout-ms: 60001 is above 60000"),
    (generate_shop.main, ["--seed", "2147483648"], "argument --seed: 2147483648 is above"),
    (_quickstart.main, ["--sidecar-port", "http"], "'http' must be a whole number"),
    (_quickstart.main, ["--sidecar-port", "0"], "port is 0, must be 1-65000")])
def test_argument_that_cannot_be_taken_is_misuse_and_told_with_what_it_must_be(main, given, said,
                                                                               capsys):
    with pytest.raises(SystemExit) as stopped:
        main(given)
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err.splitlines()[-1]
