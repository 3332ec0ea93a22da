-- Tells how an attempt on a few budgets ended: what it drew is put back, or stays spent, and it is under way no more. No
-- budget becomes more than full.
-- KEYS: the budgets; where it was seen to be under way, behind them for each what is under way on it.
-- ARGV: for each budget, what is put back of its time in microseconds; then the second at which it would be forgotten.
local clock = redis.call('TIME')
local now = (clock[1] - 1767225600) * 1000000 + clock[2]
local budgets = #ARGV - 1
for i = 1, budgets do
    local back = tonumber(ARGV[i])
    local found = back > 0 and redis.pcall('GET', KEYS[i])
    local at = type(found) == 'string' and tonumber(found)
    if at then
        at = at - back
        -- nothing that draws writes more than ten years
        if at > now and at - now < 400000000000000 then
            redis.call('SET', KEYS[i], string.format('%.4f', at), 'PX', math.ceil((at - now) / 1000))
        else
            redis.call('DEL', KEYS[i])
        end
    end
end
local forgotten_at = tonumber(ARGV[budgets + 1])
for i = budgets + 1, #KEYS do
    local ends = read_under_way(KEYS[i], math.floor(now / 1000000))
    if ends[forgotten_at] then
        ends[forgotten_at] = ends[forgotten_at] > 1 and ends[forgotten_at] - 1 or nil
        write_under_way(KEYS[i], ends)
    end
end
return 0
