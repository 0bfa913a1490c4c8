"""The measurements that the documentation quotes; `python -m benchmarks` measures vggft beside what else people use."""
