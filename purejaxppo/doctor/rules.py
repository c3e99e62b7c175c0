"""The rules of the doctor, with their thresholds: this is the one place to read them.

The order does not matter; a diagnosis is ordered by the severity that each rule finds.
Thresholds were set on runs with planted faults and on healthy runs whose seeds are not
those that the table in benchmarks/README.md was made with (`python tests/faults`).
"""

from purejaxppo.doctor.evidence import Rule
from purejaxppo.doctor.signs import (
    batches,
    critic,
    environment,
    outcome,
    policy,
    steps,
)

_SELF_CHECK = "an identity of every task; the threshold is far above rounding"
# The share of a run after which a policy should have begun to learn.
_LATE = 0.5
_MEASURED = "thresholds measured, see benchmarks/README.md"

RULES = (
    # --- the ratio and the steps --------------------------------------------------
    Rule(
        fault="log_prob",
        find=steps.unevaluable_log_prob,
        limits={"error": 1e-4},
        meaning="the loss computes another log-prob than the rollout did, from the "
        "same parameters, so that its gradient is not that of the policy that acted",
        suspect="a log-prob that cannot be re-evaluated from what the rollout stored: "
        "a mask, recurrent state or normaliser of another step, or an action changed "
        "after it was sampled",
        knobs=(
            "store the action as sampled, with the mask and the carry before the step",
            "freeze the observation statistics while a rollout and its update last",
            "compute the log-prob of the rollout by the function that the loss uses",
        ),
        source="Huang et al. 2022, 37 implementation details, debugging",
        fatal=True,
        updates=1,
    ),
    Rule(
        fault="learning_rate_zero",
        find=steps.no_learning_rate,
        limits={"rate": 1e-12, "share": 0.5},
        meaning="no step changes the policy",
        suspect="a learning rate of 0, or a schedule that reaches 0 too early",
        knobs=(
            "raise learning_rate",
            "raise learning_rate_final",
            "check the schedule",
        ),
        source="by definition",
        fatal=True,
    ),
    Rule(
        fault="degenerate_ratio",
        find=steps.degenerate_ratio,
        limits={"std": 1e-4, "rate": 0.01, "share": 0.3, "entropy": 0.01},
        meaning="the ratio does not depend on the parameters, although steps are taken",
        suspect="both sides of the ratio are the same computation, or the policy gets "
        "no gradient",
        knobs=(
            "compare the old log-prob with the stored one, not with a new evaluation",
            "look for a stop_gradient around the policy",
        ),
        source="the same threshold as the status check of an update",
        fatal=True,
    ),
    Rule(
        fault="policy_loss_sign",
        find=steps.loss_sign,
        limits={"std": 1e-4, "updates": 5, "share": 0.7, "size": 0.02},
        meaning="updates make likely what had a low advantage",
        suspect="the sign of the policy loss, or of the optimiser's step",
        knobs=(
            "minimise -min(ρ A, clip(ρ) A)",
            "check that advantages are not negated",
        ),
        source="Schulman et al. 2017, eq. 7: the step maximises the surrogate",
        fatal=True,
    ),
    Rule(
        fault="overshoot",
        find=steps.overshoot,
        limits={
            "kl": 0.03,
            "spike": 1.0,
            "clip_frac": 0.4,
            "update_norm": 0.5,
            "worst": 30.0,
        },
        meaning="the policy that the advantages belong to is left behind within an "
        "update",
        suspect="steps that are too large",
        knobs=(
            "lower learning_rate",
            "fewer num_epochs",
            "set target_kl to 0.02",
            "smaller clip_eps",
            "larger batches: num_envs, num_steps",
        ),
        source="Andrychowicz et al. 2021, section 3.6; Schulman et al. 2017; measured",
        after=_LATE,
    ),
    Rule(
        fault="too_slow",
        find=steps.slow,
        limits={
            "kl": 1e-4,
            "if_learned": 3e-5,
            "worst": 1e-8,
            "moved": 0.05,
            "entropy": 0.01,
        },
        meaning="the policy hardly changes from update to update",
        suspect="a learning rate that is too low for the optimiser",
        knobs=(
            "raise learning_rate",
            "more num_epochs or num_minibatches",
            "use Adam where plain gradient descent was used",
        ),
        source=_MEASURED,
        after=_LATE,
    ),
    Rule(
        fault="small_batch",
        find=steps.small_batch,
        limits={"samples": 512, "if_learned": 96, "worst": 8},
        meaning="the gradient of so few samples is mostly noise",
        suspect="too few environments, or rollouts that are too short",
        knobs=("more num_envs", "more num_steps", "fewer num_minibatches"),
        source="McCandlish et al. 2018, gradient noise; measured",
        after=_LATE,
    ),
    # --- advantages and returns ----------------------------------------------------
    Rule(
        fault="reward_sign",
        find=batches.reward_sign,
        limits={"cosine": -0.5, "share": 0.5, "updates": 5},
        meaning="the policy is trained to avoid what the environment rewards",
        suspect="the sign of the reward, between environment and returns",
        knobs=("look for a cost that is used as a reward",),
        source=_SELF_CHECK,
        fatal=True,
    ),
    Rule(
        fault="advantage_estimation",
        find=batches.advantage_estimation,
        limits={"error": 0.02, "share": 0.5},
        meaning="the returns are not the discounted sums of this rollout's rewards",
        suspect="the recursion of the advantages: its direction, its discount, ends of "
        "episodes that it ignores, or rewards of another step or environment",
        knobs=(
            "run the recursion from the last step to the first",
            "use gamma and gae_lambda of the configuration",
            "cut it where an episode ended",
            "check that [T, N] arrays are not reshaped across environments",
        ),
        source=f"Schulman et al. 2016, eq. 16; {_SELF_CHECK}",
        fatal=True,
    ),
    Rule(
        fault="advantages_changed",
        find=batches.changed_advantages,
        limits={"correlation": 0.9, "std": 1e-6, "share": 0.5},
        meaning="samples are reinforced for what other samples did",
        suspect="advantages that were reordered, or changed in sign or size, after "
        "they were estimated",
        knobs=(
            "shuffle all arrays of a batch by one permutation",
            "only shift and scale advantages",
        ),
        source=_SELF_CHECK,
        fatal=True,
    ),
    Rule(
        fault="truncation",
        find=batches.no_bootstrap,
        limits={"share": 0.5, "limit": 0.9, "gamma": 0.5},
        meaning="the return of a step before the time limit lacks what would have come "
        "after it",
        suspect="truncation is treated as termination",
        knobs=(
            "bootstrap from the value of the final observation where truncated",
            "report the time limit as truncated, not as terminated",
        ),
        source="Pardo et al. 2018, Time limits in reinforcement learning",
    ),
    Rule(
        fault="advantage_scale",
        find=batches.advantage_scale,
        limits={"std": 5.0, "worst": 500.0},
        meaning="the size of the rewards decides on the size of the policy's steps",
        suspect="advantages that are not normalised, with large rewards",
        knobs=('normalize_advantages "batch"', "normalize_rewards"),
        source="Andrychowicz et al. 2021, section 3.3",
    ),
    Rule(
        fault="short_horizon",
        find=batches.short_horizon,
        limits={"gamma": 0.95, "episodes": 2.0, "harmless": 25.0},
        meaning="what an action causes later does not count",
        suspect="a gamma that is too small for episodes of this length",
        knobs=("raise gamma to 0.99 or more",),
        source="horizon 1 / (1 - gamma); Andrychowicz et al. 2021, section 3.4",
        after=_LATE,
    ),
    # --- the critic ----------------------------------------------------------------
    Rule(
        fault="critic_untrained",
        find=critic.untrained_critic,
        limits={"ratio": 1e-3, "share": 0.8},
        meaning="the values stay what they were at the start, and the advantages keep "
        "all the noise of the returns",
        suspect="a value_coef of 0, or a critic without gradient",
        knobs=("value_coef of 0.5", "look for a stop_gradient around the critic"),
        source="by definition",
    ),
    Rule(
        fault="critic_overshoot",
        find=critic.critic_overshoot,
        limits={"update_norm": 0.35, "ratio": 5.0, "worst": 30.0},
        meaning="the critic jumps about its targets",
        suspect="a learning rate of the critic that is too high",
        knobs=(
            "lower the critic's learning rate",
            "lower value_coef",
            "normalize_rewards",
        ),
        source=_MEASURED,
        after=_LATE,
    ),
    Rule(
        fault="critic_diverges",
        find=critic.diverging_critic,
        limits={"growth": 20.0, "explained": 0.02, "share": 0.5, "moved": 0.35},
        meaning="every update makes the values worse",
        suspect="the sign of the value loss, or targets that contain what the critic "
        "itself has made too large",
        knobs=(
            "minimise the squared difference of values and returns",
            "no gradient into the returns",
            "normalize_rewards",
        ),
        source=_MEASURED,
        after=_LATE,
    ),
    Rule(
        fault="value_bound",
        find=critic.value_out_of_bounds,
        limits={"factor": 5.0, "share": 0.5},
        meaning="the critic promises more than any policy can get",
        suspect="a critic that diverges, or returns that are summed up twice",
        knobs=("lower the learning rate", "normalize_rewards", "lower gamma"),
        source="values are at most max abs(r) / (1 - gamma)",
    ),
    Rule(
        fault="critic",
        find=critic.critic_bottleneck,
        limits={"explained": 0.05},
        meaning="advantages are as noisy as the returns themselves",
        suspect="the critic is the bottleneck",
        knobs=(
            "normalize_rewards",
            "wider critic_hidden_sizes",
            "more num_epochs",
            "longer rollouts: num_steps",
        ),
        source="Andrychowicz et al. 2021, section 3.2; Huang et al. 2022",
        after=_LATE,
    ),
    # --- the policy ----------------------------------------------------------------
    Rule(
        fault="entropy_bonus",
        find=policy.entropy_dominates,
        limits={"fall": 0.05, "coef": 0.05, "if_learned": 0.2, "worst": 10.0},
        meaning="the policy is paid for randomness more than for reward",
        suspect="an entropy coefficient that is too large",
        knobs=("lower entropy_coef", "an entropy_schedule that ends lower"),
        source=_MEASURED,
        after=_LATE,
    ),
    Rule(
        fault="premature_determinism",
        find=policy.premature_determinism,
        limits={"share": 0.1, "noop": 0.8},
        meaning="the policy no longer tries anything else",
        suspect="an entropy coefficient that is too low, or a first success of a no-op",
        knobs=("raise entropy_coef", "an entropy_floor", "lower learning_rate"),
        source="Ahmed et al. 2019, Understanding the impact of entropy; measured",
        after=_LATE,
    ),
    Rule(
        fault="saturated_actions",
        find=policy.saturated_actions,
        limits={"share": 0.6},
        meaning="the policy only tells minimum from maximum",
        suspect="a standard deviation that is too large for the bounds, or a mean far "
        "outside of them",
        knobs=("lower init_std and max_std", 'distribution "tanh_normal"'),
        source=_MEASURED,
        after=_LATE,
    ),
    Rule(
        fault="dead_units",
        find=policy.dead_units,
        limits={"share": 0.5, "if_learned": 0.9},
        meaning="the network has less capacity than its size says",
        suspect="an activation or a learning rate that kills units, or observations "
        "far from unit size",
        knobs=("lower learning_rate", "normalize_observations", 'activation "tanh"'),
        source="Sokar et al. 2023, The dormant neuron phenomenon",
        after=_LATE,
    ),
    # --- the environment -----------------------------------------------------------
    Rule(
        fault="unusable_numbers",
        find=environment.unusable_numbers,
        limits={"count": 0.0, "low": 1e-6, "high": 1e-2},
        meaning="these steps were cut out of training",
        suspect="an environment that divides by zero or explodes",
        knobs=(
            "find the step with python -m purejaxppo.check",
            "smaller time steps of the physics",
            "bound actions and rewards",
        ),
        source="counted by the quarantine",
    ),
    Rule(
        fault="no_reward",
        find=environment.no_reward,
        limits={"share": 0.9},
        meaning="there was nothing to learn from",
        suspect="a reward that is never reached, or lost between environment and batch",
        knobs=(
            "shape the reward, or give demonstrations",
            "print the rewards of a random policy",
        ),
        source="by definition",
        after=_LATE,
    ),
    Rule(
        fault="invalid_actions",
        find=environment.invalid_actions,
        limits={"share": 0.0, "updates": 0.05},
        meaning="the mask allowed what the environment does not",
        suspect="a mask that is stale by a step, or not what step() checks",
        knobs=("compute mask and check by one function, of the same state",),
        source="a hard mask leaves no invalid action",
    ),
    Rule(
        fault="empty_mask",
        find=environment.no_valid_action,
        limits={"count": 0.0},
        meaning="there was nothing to choose from",
        suspect="a mask without an allowed action, or fewer than k for a choice of k",
        knobs=("let one action, such as a no-op, always be allowed",),
        source="counted by the heads",
    ),
    Rule(
        fault="still_observations",
        find=environment.still_observations,
        limits={"share": 0.95},
        meaning="the policy cannot see what its actions do",
        suspect="an observation that is not updated after a step",
        knobs=("store the observation of the state after step()",),
        source=f"Tambon et al. 2023 (missing state update); {_SELF_CHECK}",
    ),
    Rule(
        fault="noisy_observations",
        find=environment.noisy_observations,
        limits={"share": 0.003, "dynamics": 0.035},
        meaning="some of the observations belong to other states, or carry noise that "
        "is large against what happens in a step",
        suspect="observations in another's place, or a sensor with outliers",
        knobs=(
            "check that observations of environments are not mixed up",
            "filter the observation, or use a recurrent core",
        ),
        source=f"Tambon et al. 2023 (mangled, random); {_MEASURED}",
        after=_LATE,
    ),
    Rule(
        fault="normaliser",
        find=environment.normaliser,
        limits={"low": 0.05, "high": 5.0, "clipped": 0.1},
        meaning="the networks see inputs far from unit size",
        suspect="statistics of observations that are frozen, or of other observations",
        knobs=("update the statistics after each update", "normalize_observations"),
        source=_MEASURED,
        after=_LATE,
    ),
    Rule(
        fault="evaluation_seeds",
        find=environment.evaluation_seeds,
        limits={"relative": 1e-5},
        meaning="differences between evaluations are luck as well as learning",
        suspect="evaluation episodes that do not start from the same keys each time",
        knobs=("use one fixed eval_seed", "more eval_episodes"),
        source=_SELF_CHECK,
    ),
    # --- the learning curve ----------------------------------------------------------
    Rule(
        fault="opposite_rewards",
        find=outcome.opposite_rewards,
        limits={"rise": 0.1, "similar": 2.0},
        meaning="training and evaluation disagree on what is good",
        suspect="a reward whose sign or meaning differs between training and "
        "evaluation",
        knobs=("compare the reward of a wrapper with that of the environment",),
        source=_MEASURED,
        after=_LATE,
    ),
    Rule(
        fault="worse_than_untrained",
        find=outcome.worse_than_untrained,
        limits={"low": 0.05, "high": 1.0},
        meaning="what is learned is the opposite of what is rewarded, or destroys the "
        "policy",
        suspect="a sign, steps that are too large, or observations and actions of "
        "another environment",
        knobs=(
            "check the signs of reward and loss",
            "lower learning_rate",
            "check that [N] arrays are not reordered between policy and environment",
        ),
        source=_MEASURED,
        after=_LATE,
    ),
    Rule(
        fault="no_improvement",
        find=outcome.no_improvement,
        limits={"points": 4},
        meaning="nothing was learned, and no other rule says why",
        suspect="advantages that are too weak, or actions that change nothing",
        knobs=(
            "look at rewards/nonzero",
            "longer rollouts, more environments",
            "compare with a policy that acts at random",
        ),
        source="spec, section 8",
        after=_LATE,
    ),
    Rule(
        fault="collapse",
        find=outcome.collapse,
        limits={"kl": 0.1},
        meaning="the policy left what it had learned",
        suspect="steps that are too large where the KL has a spike, else a slow drift "
        "on noisy advantages",
        knobs=(
            "lower learning_rate, or let it decay",
            "set target_kl",
            "fewer num_epochs",
            "keep the best checkpoint",
        ),
        source="spec, section 8",
        after=_LATE,
    ),
    Rule(
        fault="sawtooth",
        find=outcome.sawtooth,
        limits={"points": 8, "drop": 0.4, "drops": 3},
        meaning="updates undo each other",
        suspect="steps that are too large, or batches that are too small",
        knobs=("lower learning_rate, or let it decay", "larger batches"),
        source="spec, section 8",
        after=_LATE,
    ),
    Rule(
        fault="brittle",
        find=outcome.brittle,
        limits={"points": 6, "fall": 1.0},
        meaning="the policy gives up some starts for others",
        suspect="too little variety in training",
        knobs=("more num_starts", "more num_envs", "look at the blocks one by one"),
        source="spec, section 8",
        after=_LATE,
    ),
)
