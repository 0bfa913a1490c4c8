"""Stage 3 of vggft: fine-tuning of the last block together with a head, from the cached outputs of the block below."""
