"""The parts of switch.py that need no model."""

import os
import subprocess
import sys
import unittest
import unittest.mock

import switch


class Switch(unittest.TestCase):
    def test_only_text_is_a_first_token(self):
        for line, want in [
            (b'data: {"choices": [{"text": "a"}]}\n', True),
            (b'data: {"choices": [{"text": ""}]}\n', False),
            (b'data: {"choices": [{"index": 0}]}\n', False),
            (b'data: {"choices": []}\n', False),
            (b"data: [DONE]\n", False),
            (b": waiting\n", False),
        ]:
            self.assertEqual(switch.has_text(line), want, line)

    def test_an_error_is_no_answer(self):
        with self.assertRaisesRegex(switch.backends.Failed, "too long"):
            switch.has_text(b'data: {"error": {"message": "too long"}}\n')

    def test_sides_take_turns(self):
        self.assertEqual(switch.turned({"a": 1, "b": 2}, 0), ["a", "b"])
        self.assertEqual(switch.turned({"a": 1, "b": 2}, 1), ["b", "a"])

    def test_children_are_those_that_live(self):
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        self.assertIn(child.pid, switch.children(os.getpid()))
        child.communicate(b"\n")
        self.assertNotIn(child.pid, switch.children(os.getpid()))

    def test_two_models_that_both_fit_are_no_switch(self):
        class Host:
            def __init__(self, fits):
                self.fits, self.asked = fits, 0

            def __enter__(self):
                return self

            def __exit__(self, *_):
                pass

            def first_token(self, _):
                self.asked += 1
                return 0.0

            def holders(self):
                return [1, 2] if self.fits else [self.asked]

        class Options:
            rounds = 2

        for fits in (False, True):
            with unittest.mock.patch.object(switch, "hosts", lambda *_: {"ours": Host(fits), "theirs": Host(False)}):
                if not fits:
                    self.assertEqual(len(switch.switch(Options, None, None)["ours"]), 2)
                    continue
                with self.assertRaisesRegex(switch.backends.Failed, "ours had both models"):
                    switch.switch(Options, None, None)

    def test_more_loads_than_models_are_missed(self):
        rows = switch.summarise({"alternate": {"ours": [3], "theirs": [2]}})
        self.assertEqual(rows[0]["verdict"], "missed")
        self.assertEqual(switch.summarise({"alternate": {"ours": [2], "theirs": [9]}})[0]["verdict"], "met")
        self.assertIn("2 loads, llama-server 9", switch.words(switch.summarise({"alternate": {"ours": [2], "theirs": [9]}})[0]))

    def test_a_shorter_time_is_ahead(self):
        rows = switch.summarise({"cold": {"ours": [1.0] * 5, "theirs": [2.0] * 5}})
        self.assertEqual((rows[0]["ratio"], rows[0]["verdict"]), (0.5, "ahead"))
        self.assertTrue(switch.words(rows[0]).startswith("cold: 1.000 s against 2.000: 0.500"))


if __name__ == "__main__":
    unittest.main()
