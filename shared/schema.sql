-- The three tables of candles and calendar, for Supabase or any PostgreSQL from 15 on. Safe to run again.
--
-- Who may what: the role kronos_training reads; kronos_writer reads, inserts and updates, but deletes nothing;
-- anon and authenticated see nothing; the owner and service_role (which bypasses row-level security) may do
-- anything. Over HTTP, hosted Supabase takes the project's own keys only: the exporter needs a secret key there
-- (a PostgREST of your own also takes a JWT whose role claim is kronos_training). For a direct connection, make
-- a login that only reads:
--     create role trainer login password '...' in role kronos_training;

do $$
begin
    if not exists (select from pg_roles where rolname = 'kronos_training') then
        create role kronos_training nologin;
    end if;
    if not exists (select from pg_roles where rolname = 'kronos_writer') then
        create role kronos_writer nologin;
    end if;
    -- PostgREST logs in as authenticator and switches to the role that the JWT names.
    if exists (select from pg_roles where rolname = 'authenticator') then
        grant kronos_training, kronos_writer to authenticator;
    end if;
end
$$;

create table if not exists public.symbols (
    symbol text primary key check (symbol <> ''),
    asset_class text not null check (asset_class in ('crypto', 'us_equity', 'index', 'fx')),
    tradable boolean not null
);

-- One bar per symbol and session. ts is the session date at 00:00 UTC; prices and amount are in quote currency.
-- The primary key is also the read index: the exporter pages through it. The second index serves --since.
create table if not exists public.ohlcv_1d (
    symbol text not null references public.symbols (symbol),
    ts timestamptz not null check (date_trunc('day', ts at time zone 'UTC') = ts at time zone 'UTC'),
    open double precision not null,
    high double precision not null,
    low double precision not null,
    close double precision not null,
    volume double precision not null check (volume >= 0 and volume < 'Infinity'),
    amount double precision check (amount >= 0 and amount < 'Infinity'), -- null: volume x mean(OHLC)
    primary key (symbol, ts),
    -- In PostgreSQL NaN is greater than every number, so the last comparison also keeps NaN and Infinity out.
    check (0 < low and low <= least(open, close) and greatest(open, close) <= high and high < 'Infinity')
);
create index if not exists ohlcv_1d_ts_symbol on public.ohlcv_1d (ts, symbol);

-- A revision or a postponement is a new row of the same event_id. first_seen_at null: the schedule was always
-- known and the actual became known at its release. There is at most one such row per event_id.
create table if not exists public.economic_calendar (
    event_id text not null check (event_id <> ''),
    event_type text not null,
    event_name text not null,
    currency text not null,
    impact text not null check (impact in ('high', 'medium', 'low')),
    release_at timestamptz not null,
    actual double precision check (actual > '-Infinity' and actual < 'Infinity'),
    forecast double precision check (forecast > '-Infinity' and forecast < 'Infinity'),
    previous double precision check (previous > '-Infinity' and previous < 'Infinity'),
    first_seen_at timestamptz,
    constraint economic_calendar_key unique nulls not distinct (event_id, first_seen_at)
);
-- Paging reads in this order, with the row that was always known first.
create index if not exists economic_calendar_pages
    on public.economic_calendar (event_id, first_seen_at nulls first);
create index if not exists economic_calendar_release on public.economic_calendar (release_at);

alter table public.symbols enable row level security;
alter table public.ohlcv_1d enable row level security;
alter table public.economic_calendar enable row level security;

-- Supabase grants new tables to anon and authenticated by default: take that back, for these three only.
do $$
declare
    stranger text;
begin
    foreach stranger in array array['anon', 'authenticated'] loop
        if exists (select from pg_roles where rolname = stranger) then
            execute format(
                'revoke all on public.symbols, public.ohlcv_1d, public.economic_calendar from %I', stranger
            );
        end if;
    end loop;
end
$$;
revoke all on public.symbols, public.ohlcv_1d, public.economic_calendar from public;

-- Whatever a run of an older version of this file granted goes first.
revoke all on public.symbols, public.ohlcv_1d, public.economic_calendar from kronos_training, kronos_writer;
grant usage on schema public to kronos_training, kronos_writer;
grant select on public.symbols, public.ohlcv_1d, public.economic_calendar to kronos_training;
grant select, insert, update on public.symbols, public.ohlcv_1d, public.economic_calendar to kronos_writer;

do $$
declare
    name text;
begin
    foreach name in array array['symbols', 'ohlcv_1d', 'economic_calendar'] loop
        execute format('drop policy if exists kronos_training_reads on public.%I', name);
        execute format(
            'create policy kronos_training_reads on public.%I for select to kronos_training using (true)', name
        );
        execute format('drop policy if exists kronos_writer_writes on public.%I', name);
        execute format(
            'create policy kronos_writer_writes on public.%I to kronos_writer using (true) with check (true)',
            name
        );
    end loop;
end
$$;
