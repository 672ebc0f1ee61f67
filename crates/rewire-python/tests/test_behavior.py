"""Errors, warnings, threads, progress, interruption and metrics in Python."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest

import rewire

CLEAN = "When John and Mary went to the shops, John gave the bag to"
CORRUPT = "When John and Mary went to the shops, Mary gave the bag to"


def test_every_exception_is_a_rewire_error():
    errors = [value for value in vars(rewire).values() if isinstance(value, type) and issubclass(value, Exception)]
    assert len(errors) == 10
    for error in errors:
        assert issubclass(error, (rewire.RewireError, rewire.RewireWarning))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"nodes": "head_zz"}, "did you mean"),
        ({"nodes": []}, "nodes is empty"),
        ({"nodes": ["head_z", "mlp_out"]}, "one kind per call"),
        ({"by": "token"}, "use all, position, cell or marked"),
        ({"by": "marked"}, "mark"),
        ({"metric": "logit-dif"}, "did you mean `logit-diff`"),
        ({"metric": 3}, "name or a function"),
        ({"direction": "denoise"}, "use denoising or noising"),
        ({"metric_position": 99}, "no position 99"),
        ({"prompt_batch": 0}, "at least 1"),
    ],
)
def test_wrong_arguments_are_refused_with_what_to_do(model, pairs, arguments, words):
    with pytest.raises(rewire.RewireError, match=words):
        rewire.activation_patching(model, pairs, **arguments)


@pytest.mark.parametrize(
    ("pairs", "words"),
    [
        (([CLEAN], [CORRUPT + " the"], [" Mary"], [" John"]), "pair number 1.*tokens"),
        (([CLEAN], [CORRUPT], [" Montgomery Burns"], [" John"]), "pair number 1"),
        (([CLEAN], [CORRUPT], [" Mary"]), "there is no wrong answer"),
        (([], [], []), "holds no prompt pairs"),
    ],
)
def test_wrong_pairs_are_refused_by_their_number(model, pairs, words):
    with pytest.raises(rewire.PairsError, match=words) as caught:
        rewire.activation_patching(model, rewire.Pairs(*pairs))
    assert "/tmp" not in str(caught.value)


def test_columns_of_different_lengths_are_refused():
    with pytest.raises(rewire.PairsError, match="clean has 1 items and answers has 2"):
        rewire.Pairs([CLEAN], [CORRUPT], [" Mary", " John"], [" John"])


def test_pairs_come_from_text_ids_and_tables(model, pairs):
    expected = rewire.activation_patching(model, pairs).per_prompt
    (clean, corrupt), (right, wrong) = pairs.for_model(model).tokens(), pairs.for_model(model).answers()
    of_ids = rewire.Pairs(np.array(clean), corrupt, right, wrong)
    assert rewire.activation_patching(model, of_ids).per_prompt.tobytes() == expected.tobytes()
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": clean, "b": corrupt, "right": right, "wrong": wrong})
    table = rewire.Pairs.from_dataframe(frame, clean="a", corrupt="b", answers="right", wrong_answers="wrong")
    assert rewire.activation_patching(model, table).per_prompt.tobytes() == expected.tobytes()
    with pytest.raises(rewire.PairsError, match="no column 'clean'; it has a, b"):
        rewire.Pairs.from_dataframe(frame)


def test_a_metric_may_be_a_function_of_the_logits(model, pairs):
    right, wrong = (np.ravel(tokens) for tokens in pairs.for_model(model).answers())

    def logit_diff(logits, prompts):
        rows = np.arange(len(prompts))
        return logits[rows, right[prompts]] - logits[rows, wrong[prompts]]

    found = rewire.activation_patching(model, pairs, metric=logit_diff, normalized=True)
    expected = rewire.activation_patching(model, pairs)
    np.testing.assert_allclose(found.values, expected.values, atol=1e-5)
    assert found.metric == "python-function"
    with pytest.raises(rewire.AnalysisError, match="gradient"):
        rewire.attribution_patching(model, pairs, metric=logit_diff)


def test_a_metric_that_fails_raises_its_own_exception(model, pairs):
    with pytest.raises(KeyError):
        rewire.activation_patching(model, pairs, metric=lambda logits, prompts: {}["missing"])
    with pytest.raises(rewire.ArgumentError, match="one number per row"):
        rewire.activation_patching(model, pairs, metric=lambda logits, prompts: [1.0] * 7)


def test_doubtful_effects_warn(model):
    same = rewire.Pairs(CLEAN, CLEAN[:-3] + " to", " Mary", " John")
    with pytest.raises(rewire.RewireError) as caught, pytest.warns(rewire.RewireWarning):
        rewire.activation_patching(model, same)
    assert "no difference to normalize by" in str(caught.value)


def test_progress_counts_all_patches(model, pairs):
    seen = []
    rewire.activation_patching(model, pairs, progress=lambda done, of: seen.append((done, of)))
    assert seen[-1] == (64, 64)


def test_nothing_is_printed(capfd, model, pairs):
    rewire.activation_patching(model, pairs, progress=False)
    model.run_with_cache(CLEAN)
    assert capfd.readouterr() == ("", "")


def test_other_threads_run_while_rewire_computes(model, pairs):
    many = rewire.Pairs([CLEAN] * 64, [CORRUPT] * 64, [" Mary"] * 64, [" John"] * 64)
    ticks, stop = [], threading.Event()

    def tick():
        while not stop.is_set():
            ticks.append(time.monotonic())
            time.sleep(0.005)

    thread = threading.Thread(target=tick)
    thread.start()
    started = time.monotonic()
    rewire.activation_patching(model, many, nodes="mlp_post")
    took = time.monotonic() - started
    stop.set()
    thread.join()
    during = [at for at in ticks if at >= started]
    assert took > 0.2 and len(during) > took / 0.005 / 20


def test_results_do_not_depend_on_the_calling_thread(model, pairs):
    expected = rewire.activation_patching(model, pairs).per_prompt.tobytes()
    found = []
    work = lambda: found.append(rewire.activation_patching(model, pairs).per_prompt.tobytes())  # noqa: E731
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 4


def test_control_c_stops_within_a_second_and_the_process_goes_on():
    script = """
        import os, signal, threading, time, rewire
        model = rewire.load("toy-gpt2")
        clean = "When John and Mary went to the shops, John gave the bag to"
        corrupt = "When John and Mary went to the shops, Mary gave the bag to"
        n = 256
        many = rewire.Pairs([clean] * n, [corrupt] * n, [" Mary"] * n, [" John"] * n)
        sent = []
        def interrupt():
            sent.append(time.monotonic())
            os.kill(os.getpid(), signal.SIGINT)
        threading.Timer(1.0, interrupt).start()
        try:
            rewire.activation_patching(model, many, nodes="mlp_post", by="position")
            print("finished")
        except KeyboardInterrupt:
            print(time.monotonic() - sent[0])
        one = rewire.Pairs(clean, corrupt, " Mary", " John")
        print(rewire.activation_patching(model, one).top(1)[0].node)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True, timeout=300
    )
    seconds, node = done.stdout.split()
    assert float(seconds) < 1.0 and node == "L0H7"
