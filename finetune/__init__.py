"""Stage 3 of vggft: fine-tuning of the last block and the best head from the cached outputs of the block below."""
