-- Puts one back into each of a few budgets; none becomes more than full.
-- KEYS: the budgets. ARGV: for each, one request's worth of time in microseconds.
local clock = redis.call('TIME')
local now = (clock[1] - 1767225600) * 1000000 + clock[2]
for i, key in ipairs(KEYS) do
    local found = redis.pcall('GET', key)
    local at = type(found) == 'string' and tonumber(found)
    if at then
        at = at - tonumber(ARGV[i])
        -- nothing that draws writes more than ten years
        if at > now and at - now < 400000000000000 then
            redis.call('SET', key, string.format('%.4f', at), 'PX', math.ceil((at - now) / 1000))
        else
            redis.call('DEL', key)
        end
    end
end
return 0
