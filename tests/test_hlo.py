"""Collectives are counted as often as their loops run, and with their bytes."""

from benchmarks.harness import hlo

# The shape of what XLA prints for an update: a loop of epochs around one of
# minibatches, whose step stands in a branch.
_PROGRAM = """\
HloModule jit_update, entry_computation_layout={(f32[8]{0})->f32[8]{0}}

%add (x: f32[], y: f32[]) -> f32[] {
  %x = f32[] parameter(0)
  %y = f32[] parameter(1)
  ROOT %sum = f32[] add(%x, %y)
}

%step (s: f32[8]) -> f32[8] {
  %s = f32[8]{0} parameter(0)
  ROOT %psum.1 = f32[8]{0:T(1024)S(1)} all-reduce(%s), channel_id=1, to_apply=%add
}

%skip (t: f32[8]) -> f32[8] {
  ROOT %t = f32[8]{0} parameter(0)
}

%minibatch_end (c: (s32[], f32[8])) -> pred[] {
  %n = s32[]{:T(128)} constant(4)
  ROOT %lt = pred[] compare(%i, %n), direction=LT
}

%minibatch (c: (s32[], f32[8])) -> (s32[], f32[8]) {
  ROOT %cond = f32[8]{0} conditional(%p, %a, %b), branch_computations={%step, %skip}
}

%epoch_end (c: (s32[], f32[8])) -> pred[] {
  %m = s32[] constant(3)
  ROOT %lt.1 = pred[] compare(%i, %m), direction=LT
}

%epoch (c: (s32[], f32[8])) -> (s32[], f32[8]) {
  ROOT %w = (s32[], f32[8]{0}) while(%c), condition=%minibatch_end, body=%minibatch
}

ENTRY %main (a: f32[8]) -> f32[8] {
  %a = f32[8]{0} parameter(0)
  %several = (f32[]{:T(128)}, s32[4]{0}) all-reduce(%u, %v), to_apply=%add
  %gathered = (u32[2]{0}, u32[4,2]{1,0}) all-gather-start(%k), dimensions={0}
  %done = u32[4,2]{1,0} all-gather-done(%gathered)
  ROOT %loop = (s32[], f32[8]{0}) while(%t), condition=%epoch_end, body=%epoch
}
"""


def test_collectives_are_counted_with_the_loops_around_them():
    found = hlo.collectives(_PROGRAM)
    assert set(found) == {"all-reduce", "all-gather"}
    # 3 epochs of 4 minibatches of 8 floats, and once a float and 4 integers.
    assert found["all-reduce"] == hlo.Collective(3 * 4 + 1, 3 * 4 * 32 + 20)
    assert found["all-gather"].calls == 1


def test_a_program_of_one_device_has_none():
    text = _PROGRAM.replace("all-reduce(", "add(").replace("all-gather-", "copy-")
    assert hlo.collectives(text) == {}
