//! What commands leave behind for a gateway to tell in its audit log: they have no log of their own.

use super::engine::query;
use super::{Answer, DEADLINE, SqlStore};

/// Entries that are taken at once.
const TAKEN_MAX: i64 = 1_000;

impl SqlStore {
    /// Leaves entries, in this order.
    pub fn leave_entries(&self, entries: Vec<String>) -> Answer<'static, ()> {
        self.write("leave_entries", move |_, mut tx, _| async move {
            let last = query("SELECT max(seq) AS last FROM portcullis_audit").one(tx.db()).await?;
            let first = last.maybe_number("last")?.unwrap_or(0).saturating_add(1);
            for (seq, entry) in (first..).zip(entries) {
                let insert = query("INSERT INTO portcullis_audit (seq, entry) VALUES (?, ?)");
                insert.bind(seq).bind(entry).execute(tx.db()).await?;
            }
            tx.commit().await
        })
    }

    /// Takes some of the oldest away. Of several gateways one gets each.
    pub fn take_entries(&self) -> Answer<'static, Vec<String>> {
        self.run("take_entries", DEADLINE, |inner| async move {
            // mostly there are none, and nobody's lock is waited for
            let any = query("SELECT seq FROM portcullis_audit LIMIT 1");
            if any.rows(inner.pool.reading().await?.db()).await?.is_empty() {
                return Ok(Vec::new());
            }
            let mut tx = inner.begin().await?;
            let oldest = query("SELECT seq, entry FROM portcullis_audit ORDER BY seq LIMIT ?");
            let rows = oldest.bind(TAKEN_MAX).rows(tx.db()).await?;
            let Some(last) = rows.last() else { return Ok(Vec::new()) };
            let last = last.number("seq")?;
            query("DELETE FROM portcullis_audit WHERE seq <= ?").bind(last).execute(tx.db()).await?;
            let entries = rows.iter().map(|row| row.text("entry")).collect::<Result<_, _>>()?;
            tx.commit().await?;
            Ok(entries)
        })
    }
}
