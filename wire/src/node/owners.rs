//! Which router shard owns a user or a room.

use std::hint::select_unpredictable;

use crate::{AppId, RoomId, UserId};

/// Keeps users and rooms of the same number apart.
const USER: u64 = 0x9e37_79b9_7f4a_7c15;
const ROOM: u64 = 0xd1b5_4a32_d192_ed03;
/// Spreads apps; odd, so no two apps fall together.
const APP: u64 = 0xff51_afd7_ed55_8ccd;
/// Odd, with as many ones as zeros.
const FACTOR: u64 = 0xa076_1d64_78bd_642f;

/// The router shards of the cluster, and who of them owns what.
///
/// Rendezvous hashing (Thaler and Ravishankar, 1998): every router has a weight for each key, and the highest
/// weight owns it. When a router goes, only its own keys move; when one comes, it takes an even share from
/// every other. All senders must agree, so the weights are part of the node protocol: no seed, and
/// independent of the order of the list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Owners {
    routers: Vec<Router>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Router {
    seed: u64,
    id: u32,
}

impl Owners {
    /// The owners of a cluster with these router shards, named by their packed shard ids, in any order.
    ///
    /// # Panics
    /// When there is none.
    pub fn new(mut routers: Vec<u32>) -> Self {
        assert!(!routers.is_empty(), "a cluster has at least one router shard");
        routers.sort_unstable();
        routers.dedup();
        let router = |id: u32| Router { seed: mix(u64::from(id).wrapping_add(USER)), id };
        Self { routers: routers.into_iter().map(router).collect() }
    }

    /// The packed ids of the router shards, ascending.
    pub fn routers(&self) -> impl Iterator<Item = u32> + '_ {
        self.routers.iter().map(|router| router.id)
    }

    /// A name for this set of routers: the same for equal sets, and hardly ever for others.
    pub fn name(&self) -> u64 {
        self.routers.iter().fold(ROOM, |name, router| mix(name ^ u64::from(router.id)).wrapping_mul(FACTOR))
    }

    /// Whether this router shard is one of them.
    pub fn contains(&self, router: u32) -> bool {
        self.routers.binary_search_by_key(&router, |router| router.id).is_ok()
    }

    /// The packed id of the router shard that owns a user.
    pub fn of_user(&self, app: AppId, user: UserId) -> u32 {
        self.of_key(key(USER, app, user.0))
    }

    /// The packed id of the router shard that owns a room.
    pub fn of_room(&self, app: AppId, room: RoomId) -> u32 {
        self.of_key(key(ROOM, app, room.0))
    }

    fn of_key(&self, key: u64) -> u32 {
        let mut owner = 0;
        let mut heaviest = 0;
        for router in &self.routers {
            let weight = weight(key, router.seed);
            // No branch: it would be mispredicted for every second key. Of equal weights the last counts, the
            // highest id.
            let heavier = weight >= heaviest;
            heaviest = heaviest.max(weight);
            owner = select_unpredictable(heavier, router.id, owner);
        }
        owner
    }
}

/// The folded product of wyhash (Wang Yi): one multiplication, enough for a key that is mixed already.
const fn weight(key: u64, seed: u64) -> u64 {
    let product = (key ^ seed) as u128 * FACTOR as u128;
    product as u64 ^ (product >> 64) as u64
}

fn key(kind: u64, app: AppId, id: i64) -> u64 {
    mix((id as u64) ^ kind).wrapping_add((app.0 as u64).wrapping_mul(APP))
}

/// The finalizer of splitmix64 (Steele, Lea and Flood, 2014; Stafford's variant 13): a bijection in which
/// every bit of the input moves about half of the output's.
pub(super) const fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: i64 = 100_000;
    const APPS: [AppId; 2] = [AppId(1), AppId(2)];

    fn owner_of_every_key(owners: &Owners) -> Vec<u32> {
        let of_app = |app| {
            (0..KEYS).flat_map(move |id| [owners.of_user(app, UserId(id)), owners.of_room(app, RoomId(id))])
        };
        APPS.into_iter().flat_map(of_app).collect()
    }

    #[test]
    fn consecutive_keys_spread_evenly() {
        for count in [2, 3, 8, 64] {
            let owners = Owners::new((0..count).collect());
            for of_app in owner_of_every_key(&owners).chunks(2 * KEYS as usize) {
                let fair = 2 * KEYS as u32 / count;
                for router in 0..count {
                    let share = of_app.iter().filter(|&&owner| owner == router).count() as u32;
                    // Six standard deviations.
                    let slack = 6 * fair.isqrt();
                    assert!(
                        share.abs_diff(fair) < slack,
                        "router {router} of {count} owns {share}, fair is {fair}"
                    );
                }
            }
        }
    }

    #[test]
    fn only_the_keys_of_a_router_that_goes_move_and_they_spread() {
        let before = Owners::new(vec![0x1_0000, 0x1_0001, 0x2_0000, 0x2_0001]);
        let after = Owners::new(vec![0x1_0000, 0x2_0000, 0x2_0001]);
        let (old, new) = (owner_of_every_key(&before), owner_of_every_key(&after));
        let mut heirs = [0u32; 3];
        for (old, new) in old.iter().zip(&new) {
            if *old == 0x1_0001 {
                heirs[after.routers().position(|id| id == *new).unwrap()] += 1;
            } else {
                assert_eq!(old, new);
            }
        }
        let fair = 4 * KEYS as u32 / 4 / 3;
        assert!(heirs.iter().all(|heir| heir.abs_diff(fair) < 6 * fair.isqrt()), "{heirs:?}");
    }

    #[test]
    fn neither_order_nor_repetition_of_the_list_matters() {
        let owners = Owners::new(vec![1, 2, 3]);
        assert_eq!(owners, Owners::new(vec![3, 1, 2, 3]));
        assert_eq!(owners.routers().collect::<Vec<_>>(), [1, 2, 3]);
    }

    #[test]
    fn users_and_rooms_and_apps_are_apart() {
        let owners = Owners::new(vec![0, 1]);
        let differ = |pair: &dyn Fn(i64) -> (u32, u32)| {
            (0..KEYS).filter(|id| pair(*id).0 != pair(*id).1).count() as i64
        };
        let user_room =
            differ(&|id| (owners.of_user(AppId(1), UserId(id)), owners.of_room(AppId(1), RoomId(id))));
        let app_app =
            differ(&|id| (owners.of_user(AppId(1), UserId(id)), owners.of_user(AppId(-1), UserId(id))));
        for count in [user_room, app_app] {
            assert!((count - KEYS / 2).abs() < KEYS / 100, "{count} differ");
        }
    }

    /// Nodes of different versions must agree.
    #[test]
    fn the_choice_is_fixed() {
        let owners = Owners::new((0..16).collect());
        let users = [i64::MIN, -1, 0, 1, 10_001, i64::MAX].map(|id| owners.of_user(AppId(1), UserId(id)));
        let rooms = [i64::MIN, -1, 0, 1, 10_001, i64::MAX].map(|id| owners.of_room(AppId(-7), RoomId(id)));
        assert_eq!((users, rooms), ([6, 3, 6, 5, 11, 0], [10, 0, 5, 0, 8, 7]));
    }
}
