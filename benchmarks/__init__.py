"""The bodies of the benchmarks, one file each; peers are imported inside."""
