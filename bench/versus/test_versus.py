"""python3 -m unittest discover -s bench/versus"""

import os
import sys
import unittest

sys.path.insert(0, os.path.dirname(__file__))

import report
import run
import stats


class Stats(unittest.TestCase):
    def test_the_interval_holds_the_ratio(self):
        found = stats.ratio([10, 11, 12, 11, 10], [5, 5, 6, 5, 5])
        self.assertAlmostEqual(found["ratio"], 2.2)
        self.assertTrue(found["low"] <= found["ratio"] <= found["high"])

    def test_unpaired_samples_are_refused(self):
        with self.assertRaises(ValueError):
            stats.ratio([1, 2], [1])

    def test_a_verdict_needs_an_interval_that_leaves_1_out(self):
        self.assertEqual(stats.verdict({"low": 1.01, "high": 1.2}, True, 5), "ahead")
        self.assertEqual(stats.verdict({"low": 1.01, "high": 1.2}, False, 5), "lost")
        self.assertEqual(stats.verdict({"low": 0.8, "high": 0.9}, True, 5), "lost")
        self.assertEqual(stats.verdict({"low": 0.9, "high": 1.1}, True, 5), "no difference found")
        self.assertEqual(stats.verdict({"low": 1.1, "high": 1.2}, True, 4), "too few rounds")


class Turns(unittest.TestCase):
    def test_the_order_turns_each_round(self):
        order, samples = [], {}
        run.in_turns(3, samples, {"a": lambda: order.append("a"), "b": lambda: order.append("b")})
        self.assertEqual("".join(order), "abbaab")


class Durations(unittest.TestCase):
    def test_each_form_of_a_duration_is_read(self):
        for timing in ({"decode_ms": 1500}, {"decode_us": 1_500_000}, {"decode": {"secs": 1, "nanos": 500_000_000}}):
            self.assertAlmostEqual(run.seconds(timing, "decode"), 1.5)


class Processes(unittest.TestCase):
    def test_the_first_byte_is_timed_and_silence_is_a_failure(self):
        took = run.first_byte(["sh", "-c", "sleep 0.2; echo a; sleep 1"])
        self.assertTrue(190 < took < 1100, took)
        with self.assertRaises(run.Failed):
            run.first_byte(["true"])
        with self.assertRaises(run.Failed):
            run.first_byte(["sh", "-c", "echo a; exit 3"])

    def test_memory_is_added_over_children(self):
        eat = "import time; x = b'x' * (40 << 20); time.sleep(0.5)"
        command = [sys.executable, "-c", f"import subprocess, sys; x = b'x' * (40 << 20); "
                   f"subprocess.run([sys.executable, '-c', {eat!r}])"]
        found = run.peak_memory(command)
        self.assertGreater(found["sum_mib"], 80)
        self.assertLess(found["wait4_mib"], 80)


class Page(unittest.TestCase):
    def test_a_second_table_replaces_the_first(self):
        first = report.splice("# Results\n\nWords.\n", f"{report.START}\nold\n{report.END}")
        second = report.splice(first + "After.\n", f"{report.START}\nnew\n{report.END}")
        self.assertNotIn("old", second)
        self.assertEqual(second.count(report.START), 1)
        self.assertTrue(second.startswith("# Results") and second.endswith("After.\n"))


if __name__ == "__main__":
    unittest.main()
