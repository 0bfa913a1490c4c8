"""Stage 3 of vggft: the last block and the best head trained together, from the cached outputs of the block below."""
