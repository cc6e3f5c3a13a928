"""The kubelet device plugin of fracgpu: one process on each GPU node.

It tells the kubelet which shares its GPUs offer, steers each container to the GPU that its pod's plan names, refuses
what would promise memory twice, and publishes what was really given away. What holds at every moment:

1. One decision, one view. `Allocate` decides and records without giving up control in between: what it has read of
   the pods at that moment is what it decided on (`granting.desk`).
2. A pod that this plugin has seen end is never admitted afterwards. So a published status (`cluster.publisher`) that
   has come past a pod's end and shows no grant of it is a promise that it never gets one.
3. A grant is dropped only when the pod has ended, the kubelet lists its devices no more, and its cgroup has no
   process (`granting.book`). What cannot be read counts as still there.
4. The grants on a GPU never exceed its units and seats through a decision of this plugin.
5. Device IDs are the truth: shares are always computed from IDs, never from what was wished for.
6. A grant is on this node's disk before the kubelet hears of it (`granting.journal`), so that no restart forgets one,
   whatever has become of the GPUNode.
7. What is granted keeps its size: another division of a GPU comes into force when nothing of it is held
   (`gpus.layout`).
8. Nothing is called enforced that is not (`isolation`).

The rooms, lowest first: `wishes` and `settings` (what an administrator wants), `gpus` (NVML, health, and what the node
offers), `sharing` (what policies and files say), `handout`, `injection` and `isolation` (what a container is given
along with its share), `granting` (who may have what, and the book of it; `desk` is where a request meets what is
known), one room for each outside world (`kubelet`, `cluster`), `usage` and `metrics` (what containers really
use), `deviceplugin`, which connects all of it, `life`, which prepares, serves and ends, with `means` and `lasting`, and
`app`, which is the process.
"""
