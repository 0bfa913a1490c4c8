"""Which method to use: one sentence, by rules that can be read here.

1. A network of which no epoch of fine-tuning was better than the head it came from is that head: use the head.
2. Fewer than `FEWEST` images that do not belong together tell nothing: use the head, which is cheaper. Groups of unequal size
   count for fewer than they are: (Σ size)² / Σ size².
3. Log-loss decides, as it does everywhere here. If the 95% interval of the network's minus the head's is below 0: use the
   network, unless all of it is within `RELEVANT` of 0; if it is above 0: use the head.
4. If it holds 0, these images show no difference: use the head, which is cheaper. How many would show a difference in
   accuracy as large as was seen is said with it (McNemar's test, 80% power; above `CAP`, as where none was seen, no number is
   given). Where images belong together, one of each group is counted.
5. Accuracy does not decide, but where its 95% interval says something else than log-loss, the sentence says so.
"""

from dataclasses import dataclass

from vggft.comparison.statistics import images_needed

# Said wherever the numbers come from images that took part in choosing heads, epochs or rates.
CAVEAT = "these images also chose the models, so differences between methods are optimistic and no p-value is given"

# Said where they chose nothing.
FAIR = "best head and best network were chosen without these images"
FAIR_FOLDS = "in every fold head, network and epochs were chosen without the images that were held out"

# More than this many images to show a difference: nobody will label them for it, and the estimate is worth little.
CAP = 100_000

# Less log-loss than this is not worth a fine-tuning: the probability of the true class is 1% higher then (0.909, say, not 0.9).
RELEVANT = 0.01

# Groups of very unequal size are what intervals by bootstrap are bad at: in simulations they held the truth in 83 to 91 of 100
# cases where 60 groups counted for 8.
FEWEST = 10


@dataclass(frozen=True)
class Pair:
    """Two methods on the same n images; differences are a minus b.

    Attributes:
        accuracy_difference, log_loss_difference: with 95% bootstrap intervals (`vggft.comparison.statistics`).
        only_a, only_b: images that one gets right and the other does not.
        effective: as how many images of which none belong together these count (`effective`).
        independent: how many of the images do not belong together, one of each group; n where none do.
        counted: `only_a` and `only_b` among those, which is what p-values and numbers of images come from.
        p_value: of McNemar's exact test; with Holm's correction for all but the first pair. None where there is none to give.
        p_value_uncorrected: the same without the correction.
    """

    a: str
    b: str
    n: int
    accuracy_difference: float
    accuracy_interval: tuple[float, float]
    log_loss_difference: float
    log_loss_interval: tuple[float, float]
    only_a: int
    only_b: int
    effective: float
    independent: int
    counted: tuple[int, int]
    p_value: float | None = None
    p_value_uncorrected: float | None = None


@dataclass(frozen=True)
class Verdict:
    """What to use, and why.

    Attributes:
        use: name of the method in the workspace.
        sentence: for people.
        images_needed: images, none of which belong together, that would show the difference in accuracy that was seen (80%
            power), where none is shown; None elsewhere, and where it is above `CAP` or no more than there are.
    """

    use: str
    sentence: str
    images_needed: int | None = None


def decide(pair: Pair, head: str, network: str, unchanged: bool, proviso: str) -> Verdict:
    """Apply the rules.

    Args:
        pair: the network (a) against the head (b).
        head, network: what they are called in the workspace.
        unchanged: no epoch of fine-tuning was better than the head.
        proviso: what has to be said of the images.
    """
    low, high = pair.log_loss_interval
    loss = (
        f"log-loss {abs(pair.log_loss_difference):.4f} {{}}, 95% interval of the difference {low:+.4f} to {high:+.4f}"
    )
    worse, better = pair.accuracy_interval[1] < 0, pair.accuracy_interval[0] > 0
    points = (
        f"{network} gets {100 * abs(pair.accuracy_difference):.1f} of 100 images {'more' if better else 'fewer'} right"
    )
    needed: int | None = None
    if unchanged:
        use, why = head, "no epoch of fine-tuning was better than the head it started from"
    elif pair.effective < FEWEST:
        use = head
        as_many = "" if pair.independent == pair.n else f", in groups that count as {pair.effective:.1f},"
        why = f"{pair.n} images{as_many} are too few to tell it from {network} ({FEWEST} at least), and it is cheaper"
    elif high < 0 and low > -RELEVANT:
        use = head
        why = f"{network} lowers log-loss by less than the {RELEVANT} that would be worth its cost ({loss.format('lower')})"
        why += f", although {points}" if better else ""
    elif high < 0:
        use, why = network, f"fine-tuning beats {head} ({loss.format('lower')})"
        if worse:
            why += f", although {points}"
        elif not (pair.only_a or pair.only_b):
            why += ", although they get the same images right"
    elif low > 0:
        use, why = head, f"{network} is worse ({loss.format('higher')})"
        if better:
            why += f", although {points}"
    elif better or worse:
        use, why = (
            head,
            f"no difference in log-loss that these {pair.n} images can show, and it is cheaper; but {points}",
        )
        why += ": take that if only the class counts" if better else ""
    else:
        use, why = head, f"no difference to {network} that these {pair.n} images can show"
        number = images_needed(*pair.counted, pair.independent)
        needed = int(number) if pair.independent < number <= CAP else None
        take = f"more than {CAP:,}" if number > CAP else f"about {number:,.0f}"
        like = "like these" if pair.independent == pair.n else "that do not belong together"
        of = "" if pair.independent == pair.n else "of one image of each group "
        equal = f"{of}they get equally many right: " if pair.counted[0] == pair.counted[1] else ""
        if number > pair.independent:  # by that formula; an interval asks for a little more
            why += f" ({equal}it would take {take} {like} to show one in accuracy)"
        why += ", and it is cheaper"
    return Verdict(use, f"Use {use}: {why}; {proviso}.", needed)
