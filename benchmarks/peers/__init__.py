"""Other services that `benchmarks.serving` measures ours beside. None of their code is used by ours."""
