"""python3 -m unittest discover -s bench/versus"""

import argparse
import json
import os
import sys
import tempfile
import textwrap
import threading
import unittest
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

sys.path.insert(0, os.path.dirname(__file__))

import backends
import cases
import engine
import prompts
import report


def words(text):
    """A tokenizer for tests: a number a word."""
    return [sum(word.encode()) for word in text.split()]


class Prompts(unittest.TestCase):
    def test_a_prompt_has_the_asked_length_and_depends_on_its_seed_alone(self):
        corpus = prompts.Corpus(words)
        first, again, other = (corpus.prompt(5000, seed) for seed in ("a", "a", "b"))
        self.assertEqual([len(first), len(other)], [5000, 5000])
        self.assertEqual(first, again)
        self.assertNotEqual(first[:2], other[:2])

    def test_only_the_first_line_of_a_system_prompt_changes_with_the_turn(self):
        first, second = (prompts.system_prompt(words, 3000, 1, turn) for turn in (0, 1))
        self.assertNotEqual(first, second)
        self.assertEqual(first.split("\n", 1)[1], second.split("\n", 1)[1])
        self.assertRegex(first, r"\Ax-anthropic-billing-header: cc_version=2\.1\.37\.abc; cc_entrypoint=cli; cch=[0-9a-f]{5};\n")
        self.assertTrue(2700 <= len(words(first)) < 3300, len(words(first)))

    def test_a_tool_result_has_about_the_asked_length(self):
        self.assertTrue(200 <= len(words(prompts.tool_result(words, 200, 1, 1))) < 280)

    def test_the_code_is_valid_and_changes_its_names_with_the_seed(self):
        files = {prompts.code(seed)[0] for seed in range(8)}
        self.assertGreater(len(files), 4)
        for text in files:
            compile(text, "code", "exec")
            self.assertTrue(55 <= len(text.splitlines()) <= 75)

    def test_prose_is_of_pages_and_doc_comments_without_code(self):
        with tempfile.TemporaryDirectory() as folder:
            page = backends_path(folder, "a.md", "# Head\n\nWords here.\n\n```\ncode\n```\n| table |\n")
            rust = backends_path(folder, "a.rs", "//! Purpose.\nfn main() {} // not this\n    /// Meaning.\n")
            self.assertEqual([line for line in prompts.prose(page) if line.strip()], ["Words here."])
            self.assertEqual(prompts.prose(rust), ["Purpose.", "Meaning."])


def backends_path(folder, name, text):
    path = prompts.Path(folder) / name
    path.write_text(text)
    return path


class Figures(unittest.TestCase):
    def test_the_worst_gap_may_begin_before_and_end_after_the_window(self):
        times = [0.0, 5.0, 5.1, 6.0, 6.1, 9.0]
        self.assertAlmostEqual(cases.worst_gap(times, 5.2, 5.9), 0.9)
        self.assertAlmostEqual(cases.worst_gap(times, 5.05, 6.05), 0.9)
        self.assertAlmostEqual(cases.worst_gap(times, 6.05, 7.0), 2.9)
        self.assertEqual(cases.worst_gap(times, 20.0, 21.0), 0.0)

    def test_recomputed_is_1_where_each_new_token_is_computed_once(self):
        turns = [{"prompt": 100, "cached": 0}, {"prompt": 150, "cached": 100}, {"prompt": 180, "cached": 150}]
        self.assertAlmostEqual(cases.recomputed(turns), 1.0)
        nothing = [{**turn, "cached": 0} for turn in turns]
        self.assertAlmostEqual(cases.recomputed(nothing), 430 / 180)

    def test_decode_speed_leaves_the_first_token_out(self):
        self.assertAlmostEqual(backends.decode_tps(11, [1.0, 1.5, 2.0]), 10.0)
        with self.assertRaises(backends.Failed):
            backends.decode_tps(1, [1.0])

    def test_thread_counts_are_powers_of_2_and_all(self):
        self.assertEqual(cases.thread_counts(1), [1])
        self.assertEqual(cases.thread_counts(2), [1, 2])
        self.assertEqual(cases.thread_counts(6), [1, 2, 4, 6])


LOG = """
load_tensors:   CPU_Mapped model buffer size =    92.10 MiB
llama_context:        CPU  output buffer size =     0.75 MiB
llama_kv_cache:        CPU KV buffer size =   180.00 MiB
llama_kv_cache: size =  180.00 MiB (  8192 cells,  30 layers,  4/1 seqs), K (f16):   90.00 MiB, V (f16):   90.00 MiB
sched_reserve:        CPU compute buffer size =    22.50 MiB
"""


class Settings(unittest.TestCase):
    def test_settings_that_are_named_are_not_measured(self):
        options = argparse.Namespace(quick=False, rounds=1, calibrate=1, settings="1 slot")
        bench = cases.Bench(options, {"llama-server": None}, None, None)
        never = lambda *_: self.fail("it was measured")
        self.assertEqual(bench.best("prefix", never, never), ("1 slot", ["-np", "1", "-fa", "on"]))
        self.assertIsNone(bench.calibrated["prefix"]["scores"])
        with self.assertRaisesRegex(backends.Failed, "no settings '1 slot': there are default, 8 slots"):
            bench.best("eight", never, never)


class Buffers(unittest.TestCase):
    def test_buffers_are_read_and_the_weights_left_out(self):
        self.assertEqual(backends.buffers(LOG), {"kv": 180 << 20, "compute": int(23.25 * 2**20)})
        self.assertEqual(backends.kv_cells(LOG), 8192)
        self.assertEqual(backends.kv_cells("nothing"), 0)


class Words(unittest.TestCase):
    """What each side is told, and what its words mean."""

    def test_both_sides_are_told_the_same(self):
        request = {"tokens": [1, 2], "max_tokens": 3, "ignore_end": True, "cache": False, "schema": {"type": "array"}}
        ours, (path, theirs) = backends.driver_request(request), backends.server_request(request)
        self.assertEqual(path, "/completion")
        self.assertEqual((ours["tokens"], ours["max_tokens"], ours["temperature"]), ([1, 2], 3, 0))
        self.assertEqual((theirs["prompt"], theirs["n_predict"], theirs["temperature"]), ([1, 2], 3, 0))
        ours, (_, theirs) = (told({**request, "temperature": 0.8, "seed": 7})
                             for told in (backends.driver_request, backends.server_request))
        self.assertEqual([(side["temperature"], side["seed"]) for side in (ours, theirs)], [(0.8, 7)] * 2)
        self.assertEqual((ours["ignore_eog"], ours["cache"]), (theirs["ignore_eos"], theirs["cache_prompt"]))
        self.assertEqual(json.loads(ours["constraint"]["json_schema"]), theirs["json_schema"])
        path, theirs = backends.server_request({"messages": [{"role": "user", "content": "a"}], "max_tokens": 3})
        self.assertEqual((path, theirs["max_tokens"]), ("/v1/chat/completions", 3))

    def test_events_of_the_driver(self):
        pending = backends.Pending({}, None)
        backends.driver_event(pending, {"event": "started", "miss": {"position": 7, "reason": "differs"}})
        backends.driver_event(pending, {"event": "text", "bytes": 1, "text": "a"})
        backends.driver_event(pending, {"event": "text", "bytes": 1, "text": "b"})
        usage = {"prompt": 10, "cached": 7, "completion": 2}
        backends.driver_event(pending, {"event": "finished", "usage": usage, "timing": {}})
        self.assertEqual((pending.answer, len(pending.times), pending.usage), ("ab", 2, usage))
        self.assertEqual(pending.miss["position"], 7)
        self.assertTrue(pending.ended and not pending.error)

    def test_an_error_of_the_driver_is_raised_where_the_answer_is_awaited(self):
        pending = backends.Pending({}, None)
        backends.driver_event(pending, {"event": "error", "kind": "ContextExceeded", "message": "too long"})
        with self.assertRaisesRegex(backends.Failed, "ContextExceeded: too long"):
            pending.wait()

    def test_streamed_objects_of_llama_server(self):
        timings = {"cache_n": 7, "prompt_n": 3, "predicted_n": 2, "prompt_ms": 1, "predicted_ms": 2, "draft_n": 4, "draft_n_accepted": 3}
        pending = backends.Pending({}, None)
        for event in ({"content": "a", "stop": False}, {"content": "b", "stop": False}, {"content": "", "stop": True, "timings": timings}):
            backends.server_event(pending, event)
        self.assertEqual((pending.answer, len(pending.times)), ("ab", 2))
        self.assertEqual(pending.usage, {"prompt": 10, "cached": 7, "completion": 2, "drafted": 4, "accepted": 3})
        chat = backends.Pending({}, None)
        for event in ({"choices": [{"delta": {"role": "assistant", "content": None}}]}, {"choices": [{"delta": {"content": "a"}}]},
                      {"choices": [{"delta": {}, "finish_reason": "length"}]}, {"choices": [], "timings": timings}):
            backends.server_event(chat, event)
        self.assertEqual((chat.answer, len(chat.times), chat.usage["cached"]), ("a", 1, 7))


# Speaks as the driver does: two tokens for each request, after a line that it is ready.
DRIVER = """
    import json, sys
    def say(**event):
        print(json.dumps({"t": 0.0, **event}), flush=True)
    say(id="", event="ready", pid=0, loaded={"kv_tokens": 64}, build={})
    for line in sys.stdin:
        order = json.loads(line)
        name = order.get("id")
        if order["op"] == "tokenize":
            say(id=name, event="tokens", count=1, tokens=[len(order["text"])])
        elif order["op"] == "cancel":
            say(id=name, event="cancelled")
        elif order.get("max_tokens") == 0:
            say(id=name, event="error", kind="InvalidRequest", message="nothing to do")
        elif order.get("max_tokens") == 99:
            sys.exit("out of ideas")
        else:
            say(id=name, event="sent")
            for text in "ab"[:order["max_tokens"]]:
                say(id=name, event="text", bytes=1, text=text)
            if order["max_tokens"] > 1:
                usage = {"prompt": len(order["tokens"]), "cached": 0, "completion": 2}
                say(id=name, event="finished", usage=usage, timing={})
"""


class Driver(unittest.TestCase):
    """`Ours` against a program that speaks as the driver does."""

    def run_with(self, program=DRIVER):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        path = os.path.join(folder.name, "drive")
        with open(path, "w") as file:
            file.write(f"#!{sys.executable}\n{textwrap.dedent(program)}")
        os.chmod(path, 0o755)
        ours = backends.Ours(path, "runner", "model", digest="0")
        return ours

    def test_answers_tokens_and_cancellation(self):
        with self.run_with() as ours:
            self.assertEqual(ours.kv_tokens, 64)
            self.assertEqual(ours.tokens("four"), [4])
            asked = [ours.ask(tokens=[1, 2, 3], max_tokens=2) for _ in range(8)]
            self.assertEqual([pending.wait().answer for pending in asked], ["ab"] * 8)
            self.assertEqual(asked[0].usage["prompt"], 3)
            endless = ours.ask(tokens=[1], max_tokens=1).until_pieces(1)
            self.assertIsNone(endless.ended)
            endless.cancel()
            self.assertTrue(endless.ended)
            with self.assertRaisesRegex(backends.Failed, "nothing to do"):
                ours.ask(tokens=[1], max_tokens=0).wait()

    def test_a_driver_that_dies_ends_every_wait(self):
        with self.run_with() as ours:
            with self.assertRaisesRegex(backends.Failed, "ended|gone"):
                ours.ask(tokens=[1], max_tokens=99).wait()
        with self.assertRaisesRegex(backends.Failed, "no such model"):
            with self.run_with("import sys; sys.exit('no such model')"):
                self.fail("a dead driver was ready")


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        order = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200 if order["n_predict"] else 400)
        self.end_headers()
        if not order["n_predict"]:
            return self.wfile.write(b'{"error":"no"}')
        for text in "abc":
            self.wfile.write(f"data: {json.dumps({'content': text, 'stop': False})}\n\n".encode())
        self.wfile.flush()
        if order["n_predict"] == 1:
            return self.server.hung_up.wait(10)
        timings = {"prompt_n": 5, "prompt_ms": 1, "predicted_n": 3, "predicted_ms": 1}
        self.wfile.write(f"data: {json.dumps({'stop': True, 'timings': timings})}\n\n".encode())

    def log_message(self, *_):
        pass


class Http(unittest.TestCase):
    def setUp(self):
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.hung_up = threading.Event()
        thread = threading.Thread(target=self.http.serve_forever, daemon=True)
        thread.start()
        self.addCleanup(self.http.server_close)
        self.addCleanup(self.http.shutdown)
        self.server = backends.Server("llama-server", "model", 1)
        self.server.port = self.http.server_address[1]

    def test_an_answer_is_read_piece_by_piece(self):
        done = self.server.ask(tokens=[1], max_tokens=3).wait()
        self.assertEqual((done.answer, len(done.times), done.usage["prompt"]), ("abc", 3, 5))

    def test_a_refusal_is_an_error(self):
        with self.assertRaisesRegex(backends.Failed, "status 400"):
            self.server.ask(tokens=[1], max_tokens=0).wait()

    def test_hanging_up_ends_an_answer_without_an_error(self):
        pending = self.server.ask(tokens=[1], max_tokens=1).until_pieces(3)
        pending.cancel()
        self.http.hung_up.set()
        self.assertTrue(pending.ended and pending.error is None)


class Busy(unittest.TestCase):
    def test_no_busy_process_outlives_its_block(self):
        children = f"/proc/{os.getpid()}/task/{threading.get_native_id()}/children"
        if not os.path.exists(children):
            self.skipTest("this system lists no children")

        def count():
            with open(children) as file:
                return len(file.read().split())

        before = count()
        with self.assertRaises(KeyError), cases.busy(3):
            self.assertEqual(count(), before + 3)
            raise KeyError
        self.assertEqual(count(), before)


def row(**more):
    return {"case": "one", "name": "decode", "unit": "tok/s", "higher_is_better": True, "against": "llama-server",
            "target": None, "ours": [2.0] * 5, "theirs": [1.0] * 5, **more}


class Table(unittest.TestCase):
    def verdict(self, **more):
        return engine.summarise([row(**more)])[0]["verdict"]

    def test_a_target_is_met_or_missed_by_the_median(self):
        self.assertEqual(self.verdict(target=("at least", 1.8)), "met")
        self.assertEqual(self.verdict(target=("at least", 2.1)), "missed")
        self.assertEqual(self.verdict(target=("at most", 1 / 20)), "missed")
        self.assertEqual(self.verdict(target=("at most", 1 / 20), ours=[0.04] * 5), "met")
        self.assertEqual(self.verdict(target=("value at most", 20), ours=[-3.0] * 5, theirs=[0.0] * 5), "met")
        self.assertEqual(self.verdict(target=("value at most", 20), ours=[21.0] * 5), "missed")

    def test_without_a_target_the_interval_decides(self):
        self.assertEqual(self.verdict(), "ahead")
        self.assertEqual(self.verdict(higher_is_better=False), "lost")
        self.assertEqual(self.verdict(ours=[0.0] * 5), "no ratio")

    def test_targets_read_as_they_were_set(self):
        self.assertEqual(engine.target_words(row(target=("at most", 1 / 20))), "≤ 1/20")
        self.assertEqual(engine.target_words(row(target=("at least", 0.98))), "≥ 0.98")
        self.assertEqual(engine.target_words(row(target=("value at most", 20), unit="MiB")), "≤ 20 MiB")

    def result(self):
        return {"date": "2026-01-01", "machine": {"cpu": "c", "cores": 2, "memory_gib": 1.0, "system": "s", "features": []},
                "forced": True, "quick": False, "load_before": 0.1, "load_after": 0.2, "threads": 2, "rounds": 5,
                "model": {"description": "m", "bytes": 1, "digest": "0" * 64}, "failed": {"gap": "no"}, "notes": ["a note"],
                "versions": {"runner": "1", "our llama.cpp": "2", "our kernels": "3", "llama.cpp": "4", "their kernels": "5"},
                "calibration": {"one": {"chosen": "8 slots", "flags": ["-np", "8"]}}}

    def test_the_page_names_cautions_losses_and_failures(self):
        rows = engine.summarise([row(target=("at least", 3)), row(higher_is_better=False), row()])
        page = engine.markdown(self.result(), rows, "raw")
        for want in ("**missed**", "**lost**", "| ahead |", "**--force** was given", "| gap | **failed**", "8 slots (`-np 8`)", "a note"):
            self.assertIn(want, page)

    def test_the_section_stands_beside_the_other_one(self):
        page = report.splice(f"# Results\n{report.START}\nother\n{report.END}\n", f"{engine.MARKS[0]}\nold\n{engine.MARKS[1]}", engine.MARKS)
        page = report.splice(page, f"{engine.MARKS[0]}\nnew\n{engine.MARKS[1]}", engine.MARKS)
        self.assertIn("other", page)
        self.assertIn("new", page)
        self.assertNotIn("old", page)


if __name__ == "__main__":
    unittest.main()
