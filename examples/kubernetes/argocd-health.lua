-- Health of a Cluster, Topic or ConsumerGroup for Argo CD: the same for all three kinds.
local hs = { status = "Progressing", message = "waiting for the operator" }
local status = obj.status
if status == nil or status.conditions == nil then
  return hs
end
if status.observedGeneration ~= obj.metadata.generation then
  hs.message = "waiting for the operator to see the last change"
  return hs
end
local found = {}
for _, condition in ipairs(status.conditions) do
  found[condition.type] = condition
end
local ready, stalled, going = found.Ready, found.Stalled, found.Reconciling
if stalled ~= nil and stalled.status == "True" then
  return { status = "Degraded", message = stalled.message }
end
if ready == nil then
  return hs
end
for _, condition in ipairs({ ready, going }) do
  if condition.reason == "Paused" then
    return { status = "Suspended", message = condition.message }
  end
end
if going ~= nil and going.status == "True" then
  return { status = "Progressing", message = going.message }
end
if ready.status == "True" then
  return { status = "Healthy", message = ready.message }
end
hs.message = ready.message
return hs
