import java.lang.reflect.Field;
import java.lang.reflect.ParameterizedType;
import java.lang.reflect.Type;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.Collection;
import java.util.List;
import java.util.Random;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.protocol.Message;
import org.apache.kafka.common.protocol.types.Schema;
import org.apache.kafka.common.record.internal.BaseRecords;
import org.apache.kafka.common.record.internal.MemoryRecords;

/** Puts an arbitrary value into every field that Apache's schema has in a version, and nowhere else. */
final class Fill {
    private static final String[] LETTERS = {"a", "Z", "0", "-", ".", "ß", "語", "🦀"};
    private final Random random;
    private final short version;
    private int depth;

    Fill(long seed, short version) {
        this.random = new Random(seed);
        this.version = version;
    }

    void message(Message message) throws Exception {
        Schema[] schemas = (Schema[]) message.getClass().getField("SCHEMAS").get(null);
        var types = Show.types(schemas[version]);
        for (Field field : Show.fields(message.getClass())) {
            var type = types.remove(Show.plain(field.getName()));
            if (type != null) {
                field.set(message, value(field.getGenericType(), type, type.isNullable() && random.nextInt(4) == 0));
            }
        }
        if (!types.isEmpty()) {
            throw new IllegalStateException("no Java field for " + types.keySet());
        }
    }

    private Object value(Type java, org.apache.kafka.common.protocol.types.Type type, boolean isNull) throws Exception {
        if (isNull) {
            return null;
        }
        if (java == boolean.class || java == Boolean.class) {
            return random.nextBoolean();
        } else if (java == byte.class || java == Byte.class) {
            return (byte) number();
        } else if (java == short.class || java == Short.class) {
            return (short) number();
        } else if (java == int.class || java == Integer.class) {
            int number = (int) number();
            return type == org.apache.kafka.common.protocol.types.Type.UINT16 ? number & 0xffff : number;
        } else if (java == long.class || java == Long.class) {
            long number = number();
            return type == org.apache.kafka.common.protocol.types.Type.UNSIGNED_INT32 ? number & 0xffffffffL : number;
        } else if (java == double.class) {
            return ((int) number()) / 16.0;
        } else if (java == String.class) {
            return text();
        } else if (java == Uuid.class) {
            return random.nextInt(6) == 0 ? Uuid.ZERO_UUID : new Uuid(random.nextLong(), random.nextLong());
        } else if (java == byte[].class) {
            return bytes();
        } else if (java == ByteBuffer.class) {
            return ByteBuffer.wrap(bytes());
        } else if (java == BaseRecords.class) {
            return MemoryRecords.readableRecords(ByteBuffer.wrap(bytes()));
        } else if (java instanceof ParameterizedType) {
            var list = new ArrayList<Object>();
            fill(list, ((ParameterizedType) java).getActualTypeArguments()[0], type);
            return list;
        }
        Class<?> raw = (Class<?>) java;
        Object made = raw.getDeclaredConstructor().newInstance();
        if (made instanceof Collection) {
            Type item = ((ParameterizedType) raw.getGenericSuperclass()).getActualTypeArguments()[0];
            @SuppressWarnings("unchecked") Collection<Object> collection = (Collection<Object>) made;
            fill(collection, item, type);
        } else {
            message((Message) made);
        }
        return made;
    }

    private void fill(Collection<Object> into, Type item, org.apache.kafka.common.protocol.types.Type type) throws Exception {
        int count = random.nextInt(depth == 0 ? 5 : depth == 1 ? 4 : 3);
        depth++;
        List<Object> made = new ArrayList<>();
        for (int i = 0; i < count; i++) {
            made.add(value(item, type.arrayElementType().orElseThrow(), false));
        }
        depth--;
        for (Object one : made) {
            if (!into.add(one)) {
                throw new IllegalStateException("the collection refuses an element");
            }
        }
    }

    private long number() {
        switch (random.nextInt(8)) {
            case 0: return 0;
            case 1: return -1;
            case 2: return Long.MAX_VALUE;
            case 3: return Long.MIN_VALUE;
            case 4: return random.nextInt(300);
            default: return random.nextLong();
        }
    }

    private int length() {
        int kind = random.nextInt(10);
        return kind == 0 ? 0 : kind == 1 ? 100 + random.nextInt(200) : random.nextInt(12);
    }

    private String text() {
        StringBuilder out = new StringBuilder();
        for (int i = length(); i > 0; i--) {
            out.append(LETTERS[random.nextInt(LETTERS.length)]);
        }
        return out.toString();
    }

    private byte[] bytes() {
        byte[] bytes = new byte[length()];
        random.nextBytes(bytes);
        return bytes;
    }
}
