"""Every number that the adaptive code was given, in one place."""

from dataclasses import dataclass

__all__ = ["TUNING", "Tuning"]


@dataclass(frozen=True)
class Tuning:
    """Numbers with their units, effects and origins.

    *derived*: follows from a theory that is named. *fitted*: the best of those tried with
    ``python -m bench.simulate``. *guessed*: a sensible order of magnitude that was not varied.
    """

    # The fit of a cost (fit.py, estimator.py)
    window_calls: int = 96
    """Calls that are looked at without noise. Fitted."""
    window_longest_factor: float = 8.0
    """Times as many are looked at in noise, at most. Fitted."""
    window_noise: float = 0.1
    """Noise from which on more calls are looked at, by its square, as a mean needs. Derived."""
    half_life_calls: float = 48.0
    """Calls after which one counts half. Fitted."""
    refit_interval_s: float = 0.25
    """Least time between two fits. Guessed; a fit takes a millisecond."""
    refit_news: float = 1 / 64
    """Part of the window that must be new before a fit. Guessed."""
    first_fits: int = 8
    """So many first calls are each followed by a fit. Guessed."""
    fits_to_know: int = 3
    """Fits from which on a cost is relied upon: a line needs two points, and one to check."""
    transport_candidates: int = 16
    """Transports that are tried, up to the shortest call. Guessed."""
    transport_refinements: int = 4
    """Halvings of the distance around the best of them. Guessed."""
    transport_doubt: float = 4.0
    """Twice the log-likelihood ratio within which the transport stays as it was; two deviations.
    Derived (Wilks' theorem)."""
    keep_shape: float = 0.3
    """How strongly a noisy fit holds on to the ratio of fixed and per-item time. Fitted."""
    exact: float = 0.01
    """Relative error that needs no explanation; the least noise. Guessed."""
    negligible_square: float = 1e-5
    """Difference between mean square relative errors that is none. Guessed."""
    least_spread: float = 1e-3
    """Relative variance of sizes below which they are all alike. Guessed."""
    noise_prior: float = 0.3
    """Relative deviation that is expected before any call. Guessed."""
    noise_prior_calls: float = 10.0
    """Calls for which the noise as it was counts. Fitted."""
    shortest_s: float = 1e-6
    """No call is shorter, against division by zero."""

    # The test for a change (changes.py), in units of the usual error
    usual_error: float = 0.05
    """Relative error of a call that is no news, however exact the others are. Guessed."""
    outlier: float = 5.0
    """Errors beyond are passed over unless they become the rule. Guessed."""
    cusum_clip: float = 4.0
    """The most that one call counts for. Fitted."""
    cusum_slack: float = 1.0
    """Taken off for each call: half of the least change worth knowing. Derived (Page, 1954)."""
    cusum_alarm: float = 8.0
    """A sum beyond is a change. Fitted: none in thousands of noisy calls, seen after a dozen."""

    # Departure (departure.py)
    margin: float = 0.02
    """Of a call's time: earlier than just in time by so much. Fitted."""
    full_lead_noise: float = 2.0
    """Times the noise: earlier by so much for a full batch, which nobody else can join. Fitted."""
    idle_balance: float = 0.83
    """See :func:`departure.idle_enough`. Fitted to the optimum of ``bench.optimum``."""
    idle_sure: float = 0.95
    """The highest likelihood of idleness that is waited for. Fitted."""
    certain_deviations: float = 4.0
    """Deviations after which a call is overdue."""
    most_keep: float = 0.98
    """Of the highest number of calls in flight, at each call that ended. Guessed."""
    never: float = 1e-12
    """A probability that is as good as none, against division by zero."""
    bisections: int = 12
    """Halvings of the time in which a departure is looked for: to a four thousandth."""

    # Rates and turns (turns.py)
    rate_keep: float = 0.85
    """Of what was seen of a rate, at each call. Guessed."""
    rate_window_s: float = 2.0
    """Time constant of the rate at which items arrive. Guessed."""
    catch_up_calls: float = 40.0
    catch_up_s: tuple[float, float] = (0.2, 2.0)
    """Full calls' time, within two limits, in which a backlog is to be worked off. Guessed."""
    mix_keep: float = 0.97
    """Of what was seen of the costs that calls on a server have, at each call. Guessed."""
    rate_pause: float = 4.0
    """Times a call's time: a longer pause between two calls tells nothing of a rate. Guessed."""
    kinds: int = 1024
    """Keys and kinds that are remembered; those unused for longest are forgotten."""

    # Probing (probing.py); a pause is so many calls' times, within the two limits in seconds
    probe_late_calls: float = 30.0
    probe_late_s: tuple[float, float] = (0.1, 0.8)
    """Between two late departures. Fitted."""
    probe_early_calls: float = 60.0
    probe_early_s: tuple[float, float] = (0.1, 3.0)
    """Between two early ones, each of which makes a few items miss a call. Fitted: so many that
    the slowest hundredth of them are others."""
    probe_early: float = 0.15
    """Of a call's time, with the noise on top: so much earlier than just in time. Fitted."""
    probe_early_noise: float = 0.3
    """Of the noise no more is put on top. Guessed."""
    probe_late: float = 0.04
    """Of a call's time: so much less lead. Fitted."""
    probe_late_room: float = 0.75
    """Of a batch; a fuller one is never late. Guessed."""
    probe_noise: float = 0.1
    """Noise by which costs show by themselves: with three times as much, probes are rare."""
    probe_more_calls: float = 50.0
    probe_more_s: tuple[float, float] = (0.2, 2.0)
    """Between two calls that meet more others than is best. Fitted, as above."""
    probe_more_crowded_calls: float = 6.0
    """The same while a full batch waits: what is full costs nothing more, and where a device is
    given too few calls, the backlog grows until that is known. Guessed."""
    probe_more_new: int = 3
    """Calls at a number that was hardly seen yet which follow each other without a pause. Guessed.
    """
    probe_alone_calls: float = 20.0
    probe_alone_s: tuple[float, float] = (0.1, 2.0)
    """Between two calls that meet no other, while too few such are remembered. Guessed."""
    probe_merging_calls: float = 400.0
    probe_merging_s: tuple[float, float] = (0.4, 20.0)
    """Between two pairs of calls that wait for a third together. Guessed."""
    probe_merging_new_calls: float = 20.0
    """The same before the first few of them. Guessed."""
    probe_merging_room: float = 0.5
    """Of a batch; with a fuller one it is not tried, since it costs the device another call, which
    near capacity is felt for long. Fitted."""
    probe_merging_apart: float = 0.2
    """Of a call's time, from one of a pair to the other. Guessed."""

    # Concurrency (concurrency.py)
    capacity_used: float = 0.995
    """Of a capacity, beyond which nothing is planned. Guessed."""
    speed_enough: float = 0.95
    """Of the highest speed: less is not worth more calls at a time, where all are too slow.
    Guessed."""
    concurrency_gain: float = 0.03
    """Of the expected latency: a smaller gain changes nothing. Guessed."""

    # Servers that merge what waits (merging.py)
    merging_share: float = 0.7
    """Of the occasions on which waiting calls ended together: from here on it merges. Guessed."""
    merging_occasions: float = 3.4
    """Before which nothing is said: four, as older ones count less. Guessed."""
    merging_apart: float = 3.0
    """Times that: calls must have been sent so far apart, to show that they end together. Guessed.
    """
    merging_longest: float = 3.0
    """Full calls' times, after which a call that was to be merged is overdue. Guessed; two and
    less are to be expected."""
    merging_saved: float = 0.4
    """Of a call's fixed time: calls that end together later than one call would by so much were
    none. Guessed; it would be all of it for each call but one."""
    merging_keep: float = 0.9
    """Of what was seen, at each occasion. Guessed."""
    merging_together: float = 0.05
    """Of a call's time: ends nearer to each other are one. Guessed."""

    # The kind of device (device.py)
    contrast_calls: int = 16
    """Calls that are kept of each level of concurrency. Guessed."""
    contrast_all: int = 48
    """Of all levels together that are looked at. Guessed; so is the next."""
    contrast_least: int = 5
    """Of each level, if there are many."""
    contrast_age_s: float = 60.0
    """After which a call is no contrast any more. Guessed."""
    contrast_transports: int = 6
    """Transports that are tried, up to the shortest call. Guessed."""
    contrast_exact: float = 0.03
    """Relative error that needs no explanation. Guessed."""
    contrast_evidence: float = 16.0
    """Twice the log-likelihood ratio by which another kind is taken. It is high since what no kind
    explains, such as a cost that is no straight line, is no independent noise. Fitted."""
    contrast_enough: int = 8
    """Calls before which nothing is said. Guessed."""
    contrast_longer: float = 1.5
    """Times as long from one look to the next, if the kind was the same. Guessed."""
    transport_moved: float = 0.1
    """Of a transport: found to be another by more, it is taken over. Guessed."""
    contrast_share: float = 0.1
    """Of its time for which a call must meet others, for it to have met them. Guessed."""
    contrast_overlap: float = 0.25
    """Of a call's time, for which a call that is to meet another one meets it. Guessed."""
    contrast_s: tuple[float, float] = (0.5, 2.0)
    """From one look at the kinds to the next: first, and when they have long been the same; it
    takes a millisecond or two. Guessed."""

    # Choice of a server (policy.py)
    spare_least: float = 0.02
    """Part of a server's capacity that is reckoned to be spare at least. Guessed."""
    explore_interval_s: float = 4.0
    """A server that had no call for so long gets one item, to see how fast it is. Guessed."""

    # Waiting for what is known to come (coalescing.py)
    call_cpu_s: float = 1.5e-3
    """CPU that a call costs this machine, whatever it carries. Measured (bench/README.md)."""
    inbound_parts: int = 4
    """Parts of what is inbound that are tried. Guessed."""
    inbound_patience: float = 2.0
    """Times as long as inbound items should take, they are waited for. Guessed."""
    returning_window: float = 0.75
    """Of a call's fixed time: who comes back within. Waiting for longer would hardly pay. Derived.
    """
    returning_share: float = 0.8
    """Of all arrivals, that must have come back, to be waited for: what others lose by that is not
    worth it below. Guessed."""
    returning_keep: float = 0.98
    """Of what was seen, at each arrival: fifty of them count. Guessed."""
    returning_prior: float = 2.0
    """Arrivals that are taken to have come at random before any was seen. Guessed."""
    returning_weight: float = 0.05
    """Of the last delay in the mean. Guessed."""
    returning_patience: float = 3.0
    """Mean delays after the mean of the slowest, when nobody is waited for any more. Guessed: one
    round in twenty takes longer."""
    euler_gamma: float = 0.577
    """The mean of the longest of n exponential times is their mean times ln(n) + this. Derived."""


TUNING = Tuning()
