"""Export of trained policies, to run them where there is no JAX.

numpy_policy  runs an exported policy; needs NumPy alone and can be copied
writer        a trained policy -> plain arrays and metadata -> policy.npz
onnx          the same arrays as a graph -> policy.onnx
"""
